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

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use envelope_broker::busy_poll::BusyPoll;
use envelope_core::context::EncryptionContext;
use envelope_core::request::{KmsError, Reply, Request};

use crate::error::Error;
use crate::pg::waiting;
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
    /// One of several that the broker answers together.
    Batch {
        batch: Rc<Batch>,
        at: usize,
        until: Instant,
    },
    Thread(own_thread::Pending<Result<Reply, KmsError>>),
}

/// Requests that the broker answers together.
struct Batch {
    requests: usize,
    state: RefCell<BatchState>,
}

enum BatchState {
    UnderWay(Exchange),
    /// Each reply until it is taken.
    Answered(Vec<Option<Result<Reply, KmsError>>>),
    Lost,
}

impl Batch {
    /// One reply, if all are there.
    fn try_take(&self, at: usize) -> Result<Option<Result<Reply, KmsError>>, Lost> {
        let mut state = self.state.borrow_mut();
        if let BatchState::UnderWay(exchange) = &mut *state {
            match exchange.try_take_many(self.requests) {
                Ok(None) => return Ok(None),
                Ok(Some(replies)) => *state = BatchState::Answered(replies.into_iter().map(Some).collect()),
                Err(lost) => {
                    *state = BatchState::Lost;
                    return Err(lost);
                }
            }
        }
        match &mut *state {
            BatchState::Answered(replies) => Ok(replies[at].take()),
            // Told to whoever was the first to look.
            _ => Err(Lost::Ended),
        }
    }

    fn deadline(&self) -> Instant {
        match &*self.state.borrow() {
            BatchState::UnderWay(exchange) => exchange.deadline(),
            _ => Instant::now(),
        }
    }
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
            let (taken, until) = match &mut self.way {
                Way::Thread(pending) => return pending.try_take().map(|reply| Ok(reply??)),
                Way::Broker { exchange, until } => (exchange.try_take(), *until),
                Way::Batch { batch, at, until } => (batch.try_take(*at), *until),
            };
            let lost = match taken {
                Ok(reply) => return reply.map(|reply| reply.map_err(Error::from)),
                Err(lost) => lost,
            };
            match self.another_way(&lost, until) {
                Ok(way) => self.way = way,
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Asks anew when the broker was lost: the one that follows it, or without one.
    fn another_way(&self, lost: &Lost, until: Instant) -> Result<Way, Error> {
        let may_retry = matches!(lost, Lost::Ended) && Instant::now() < until;
        let again = match may_retry {
            true if self.in_background => broker::ask_without_waiting(&self.request),
            true => broker::ask(&self.request),
            false => None,
        };
        if let Some(exchange) = again {
            return Ok(Way::Broker { exchange, until });
        }
        // One that is being started is not to be avoided.
        if !(may_retry && self.in_background) {
            broker::go_on_without(lost);
        }
        ask_thread(&self.request)
    }

    /// The encryption context that it is about.
    pub fn context(&self) -> &EncryptionContext {
        self.request.context()
    }

    /// When to look again even if nothing has come.
    fn deadline(&self) -> Instant {
        match &self.way {
            Way::Broker { exchange, .. } => exchange.deadline(),
            Way::Batch { batch, .. } => batch.deadline(),
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

/// Starts several requests, of data keys that values have already. They are answered together if the broker answers them, and [`wait`]
/// for one waits for all.
///
/// # Errors
/// [`Error::OwnThread`].
pub fn start_many(requests: Vec<Request>) -> Result<Vec<Pending>, Error> {
    let started = Instant::now();
    let Some(exchange) = broker::ask_many(&requests) else { return requests.into_iter().map(start).collect() };
    let batch = Rc::new(Batch { requests: requests.len(), state: RefCell::new(BatchState::UnderWay(exchange)) });
    let until = started + broker::SUCCESSION_TIME;
    let pending = |(at, request)| {
        let way = Way::Batch { batch: Rc::clone(&batch), at, until };
        Pending { request, started, way, in_background: false }
    };
    Ok(requests.into_iter().enumerate().map(pending).collect())
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

thread_local! {
    /// Requests are answered one like the other: from memory, or by KMS.
    static BUSY_POLL: BusyPoll = const { BusyPoll::new() };
}

/// Waits for a request.
///
/// # Errors
/// Why it failed. An interrupt is raised by PostgreSQL itself: the request is then dropped.
pub fn wait(pending: &mut Pending) -> Result<Reply, Error> {
    // As of those that were answered with the one before.
    if let Some(reply) = pending.try_take() {
        return reply;
    }
    BUSY_POLL.with(|busy_poll| {
        let wait = busy_poll.begin();
        loop {
            if !wait.polls_again() {
                waiting::wait(pending.deadline().saturating_duration_since(Instant::now()));
            }
            if let Some(reply) = pending.try_take() {
                wait.end();
                return reply;
            }
        }
    })
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
    own_thread::start(move |providers| async move { providers.answer(request).await.map_err(uncounted) })
        .map(Way::Thread)
}

/// An error of a call that was not made counts as none.
fn uncounted(error: KmsError) -> KmsError {
    KmsError { calls: if error.was_made() { error.calls } else { 0 }, ..error }
}
