//! The server's broker, as PostgreSQL sees it: a background worker that the first session in need starts, and a Unix socket in
//! the data directory. What it does is in `envelope_broker`.
//!
//! - `client`: one command over the socket
//! - `last_words`: what it last said about itself
//! - `launch`: starting the worker, once
//! - `worker`: the worker's main function

mod client;
pub mod last_words;
mod launch;
mod worker;

use std::cell::RefCell;
use std::time::{Duration, Instant};

use envelope_broker::protocol::{Command, Response, VERSION};
use envelope_core::request::{Reply, Request};
use once_cell::sync::Lazy;

use crate::ask::{aliases, journal, shared_counters};
use crate::error::Error;
use crate::pg::{settings, waiting};
pub use client::{Exchange, Lost};

/// Relative to the data directory, which is the working directory of every process of PostgreSQL: a socket's name may have
/// 107 bytes, and a data directory's path more.
static SOCKET: Lazy<String> = Lazy::new(|| format!("pg_stat_tmp/envelope_pg.{VERSION}.sock"));
/// Held by the broker as long as it lives.
static LIFE_LOCK: Lazy<String> = Lazy::new(|| format!("pg_stat_tmp/envelope_pg.{VERSION}.lock"));
/// How long a session waits before it looks for the broker that follows one that has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Held by the session that starts it.
static LAUNCH_LOCK: Lazy<String> = Lazy::new(|| format!("pg_stat_tmp/envelope_pg.{VERSION}.launch"));

/// Brokers that end one after the other, as when somebody stops them, are followed for so long.
pub const SUCCESSION_TIME: Duration = Duration::from_secs(2);
/// What a broker says about itself it says at once; who watches it does not wait for one that hangs.
const STATUS_TIME: Duration = Duration::from_millis(500);
/// And does not try again for so long.
const SILENT_TIME: Duration = Duration::from_secs(2);

/// Whether this session asks the broker at this time.
pub fn is_wanted() -> bool {
    settings::broker() && !shared_counters::is_broker_avoided()
}

/// Asks the broker, which is started if there is none. `None`: go on without it.
pub fn ask(request: &Request) -> Option<Exchange> {
    if !is_wanted() {
        return None;
    }
    send(&command(request))
}

/// Asks the broker for several things at once, [`protocol::MAX_REQUESTS`] at most. `None` as for [`ask`].
pub fn ask_many(requests: &[Request]) -> Option<Exchange> {
    if !is_wanted() {
        return None;
    }
    let settings = settings::kms_settings().fingerprint;
    send(&Command::AskMany { requests: requests.iter().collect(), settings })
}

fn send(command: &Command<&Request>) -> Option<Exchange> {
    if let Some(exchange) = Exchange::start_kept(command) {
        return Some(exchange);
    }
    let try_once = || connect().and_then(|socket| Exchange::start(socket, command));
    // One that has just ended, as an idle one does, is followed by another one.
    let until = Instant::now() + SUCCESSION_TIME;
    let started = loop {
        match try_once() {
            Err(Lost::Ended) if Instant::now() < until => waiting::wait(LOOK_AGAIN),
            started => break started,
        }
    };
    started.map_err(|lost| go_on_without(&lost)).ok()
}

/// Asks the broker if there is one, and does not wait for it; else has it started for the next time.
pub fn ask_without_waiting(request: &Request) -> Option<Exchange> {
    let command = command(request);
    let started = match client::connect() {
        Ok(socket) => Exchange::start(socket, &command).map(Some),
        Err(_) => launch::begin().map(|()| None),
    };
    started.map_err(|lost| go_on_without(&lost)).ok().flatten()
}

/// Goes on without the broker, and says so in the log. If something is wrong with it, all sessions do for a while.
pub fn go_on_without(lost: &Lost) {
    // One that was stopped is no worse than none: the next request starts another one.
    if matches!(lost, Lost::Unwell(_)) {
        shared_counters::avoid_broker();
    }
    if shared_counters::may_log() {
        journal::broker_lost(&lost.to_string());
    }
}

/// Asks the running broker for something, also if this session does without it; `None` if there is none.
///
/// # Errors
/// Why it was not done, and [`Error::Broker`] if it does not answer.
pub fn ask_running(request: Request) -> Result<Option<Reply>, Error> {
    match converse(&command(&request), None)? {
        Some(Response::Reply(reply)) => {
            let reply = reply.map_err(Error::from);
            shared_counters::count_call(&request, &reply);
            reply.map(Some)
        }
        _ => Ok(None),
    }
}

/// Asks the running broker for its counts; `None` if there is none. One that did not answer just now is not asked again at once: who
/// watches a server asks for several things in one go.
///
/// # Errors
/// [`Error::Broker`] if it does not answer.
pub fn watch_running(command: &Command<&Request>) -> Result<Option<Response>, Error> {
    thread_local! {
        static SILENT: RefCell<Option<(Instant, String)>> = const { RefCell::new(None) };
    }
    let silent = SILENT.with_borrow(|silent| silent.clone());
    if let Some((_, reason)) = silent.filter(|(since, _)| since.elapsed() < SILENT_TIME) {
        return Err(Error::Broker(reason));
    }
    let response = send_to_running(command);
    let reason = match &response {
        Err(Error::Broker(reason)) => Some((Instant::now(), reason.clone())),
        _ => None,
    };
    SILENT.set(reason);
    response
}

/// Calls the running broker about itself; `None` if there is none.
///
/// # Errors
/// [`Error::Broker`] if it does not answer.
pub fn send_to_running(command: &Command<&Request>) -> Result<Option<Response>, Error> {
    converse(command, Some(STATUS_TIME))
}

/// One command to the running broker, which may take as long as KMS, or `at_most` so long.
fn converse(command: &Command<&Request>, at_most: Option<Duration>) -> Result<Option<Response>, Error> {
    let deadline = at_most.map(|time| Instant::now() + time);
    let Ok(socket) = client::connect() else {
        return Ok(None);
    };
    let exchange = Exchange::start(socket, command);
    let response = exchange.and_then(|mut exchange| {
        loop {
            if let Some(response) = exchange.try_take_response()? {
                return Ok(response);
            }
            let now = Instant::now();
            if deadline.is_some_and(|deadline| now >= deadline) {
                return Err(Lost::Unwell("it shows no sign of life".into()));
            }
            let until = exchange.deadline().min(deadline.unwrap_or(exchange.deadline()));
            waiting::wait(until.saturating_duration_since(now));
        }
    });
    match response {
        Ok(response) => Ok(Some(response)),
        Err(Lost::Ended) => Ok(None),
        Err(lost) => Err(Error::Broker(lost.to_string())),
    }
}

fn command(request: &Request) -> Command<&Request> {
    let settings = settings::kms_settings();
    let resolution = aliases::resolution(request, &settings.aws);
    Command::Ask { request, settings: settings.fingerprint, resolution }
}

fn connect() -> Result<rustix::fd::OwnedFd, Lost> {
    client::connect().or_else(|_| launch::launch())
}
