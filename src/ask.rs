//! Requests about data keys: through the server's broker, or else through this backend's own thread. Nothing fails for want of
//! the broker.
//!
//! - `broker`: the background worker that all sessions share, and how they ask it
//! - `own_thread`: this backend's own thread that talks to KMS
//! - `shared_counters`: counters that all processes of the server see
//! - `aliases`: what aliases stood for, for a broker that does not know
//! - `journal`: what goes to the server's log, and how often

mod aliases;
pub mod broker;
pub mod journal;
pub mod own_thread;
pub mod shared_counters;

use std::time::{Duration, Instant};

use envelope_core::context::EncryptionContext;
use envelope_core::request::{KmsError, Reply, Request};

use crate::error::Error;
use crate::pg::{settings, waiting};
use broker::{Exchange, Lost};

/// A request that is under way. Dropping it cancels the request.
pub struct Pending {
    request: Request,
    started: Instant,
    way: Way,
    /// Nobody waits for it, so it may not wait for the broker's start.
    in_background: bool,
}

enum Way {
    /// A broker that ends is followed by another one, until then.
    Broker {
        exchange: Exchange,
        until: Instant,
    },
    Thread(own_thread::Pending<Result<Reply, KmsError>>),
}

impl Pending {
    /// The reply, if there is one yet.
    pub fn try_take(&mut self) -> Option<Result<Reply, Error>> {
        let reply = self.try_take_uncounted()?;
        if matches!(self.way, Way::Thread(_)) {
            shared_counters::count_own_call();
        }
        shared_counters::count_call(&self.request, &reply);
        if let Ok(reply) = &reply {
            aliases::learn(&self.request, reply, self.started);
        }
        Some(reply)
    }

    fn try_take_uncounted(&mut self) -> Option<Result<Reply, Error>> {
        loop {
            match &mut self.way {
                Way::Thread(pending) => return pending.try_take().map(|reply| Ok(reply??)),
                Way::Broker { exchange, until } => match exchange.try_take() {
                    Ok(reply) => return reply.map(|reply| reply.map_err(Error::from)),
                    Err(lost) => {
                        let until = *until;
                        let may_retry = matches!(lost, Lost::Ended) && Instant::now() < until;
                        let again = match may_retry {
                            true if self.in_background => broker::ask_without_waiting(&self.request),
                            true => broker::ask(&self.request),
                            false => None,
                        };
                        self.way = match again {
                            Some(exchange) => Way::Broker { exchange, until },
                            None => {
                                // One that is being started is not to be avoided.
                                if !(may_retry && self.in_background) {
                                    broker::go_on_without(&lost);
                                }
                                match ask_thread(&self.request) {
                                    Ok(way) => way,
                                    Err(error) => return Some(Err(error)),
                                }
                            }
                        };
                    }
                },
            }
        }
    }

    /// The encryption context that it is about.
    pub fn context(&self) -> &EncryptionContext {
        self.request.context()
    }

    /// When to look again even if nothing has come.
    fn deadline(&self) -> Instant {
        match &self.way {
            Way::Broker { exchange, .. } => exchange.deadline(),
            Way::Thread(pending) => pending.deadline(),
        }
    }
}

/// Starts a request.
///
/// # Errors
/// [`Error::OwnThread`].
pub fn start(request: Request) -> Result<Pending, Error> {
    let started = Instant::now();
    let way = match broker::ask(&request) {
        Some(exchange) => Way::Broker { exchange, until: Instant::now() + broker::SUCCESSION_TIME },
        None => ask_thread(&request)?,
    };
    Ok(Pending { request, started, way, in_background: false })
}

/// Starts a request that nobody waits for. `None`: the broker is not there yet; try again later.
///
/// # Errors
/// [`Error::OwnThread`].
pub fn start_in_background(request: Request) -> Result<Option<Pending>, Error> {
    let started = Instant::now();
    let way = if broker::is_wanted() {
        broker::ask_without_waiting(&request)
            .map(|exchange| Way::Broker { exchange, until: Instant::now() + broker::SUCCESSION_TIME })
    } else {
        Some(ask_thread(&request)?)
    };
    Ok(way.map(|way| Pending { request, started, way, in_background: true }))
}

/// Waits for a request.
///
/// # Errors
/// Why it failed. An interrupt is raised by PostgreSQL itself: the request is then dropped.
pub fn wait(pending: &mut Pending) -> Result<Reply, Error> {
    loop {
        if let Some(reply) = pending.try_take() {
            return reply;
        }
        waiting::wait(pending.deadline().saturating_duration_since(Instant::now()));
    }
}

/// Waits until something has come for one of some requests, or one of them is to be looked at; for `at_most` at most.
pub fn wait_for_any<'a>(pending: impl Iterator<Item = &'a Pending>, at_most: Duration) {
    let deadline = pending.map(Pending::deadline).min();
    let until_deadline = deadline.map_or(at_most, |deadline| deadline.saturating_duration_since(Instant::now()));
    waiting::wait(until_deadline.min(at_most));
}

fn ask_thread(request: &Request) -> Result<Way, Error> {
    let request = request.clone();
    aliases::forget_old();
    own_thread::start(settings::kms_settings(), move |providers| async move {
        providers.answer(request).await.map_err(uncounted)
    })
    .map(Way::Thread)
}

/// An error of a call that was not made counts as none.
fn uncounted(error: KmsError) -> KmsError {
    KmsError { calls: if error.was_made() { error.calls } else { 0 }, ..error }
}
