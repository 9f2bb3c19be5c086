//! The server's broker, as PostgreSQL sees it: a background worker that the first session in need starts, and a Unix socket in
//! the data directory. What it does is in `envelope_core::broker`.
//!
//! - `client`: one call over the socket
//! - `launch`: starting the worker, once
//! - `worker`: the worker's main function

mod client;
mod launch;
mod worker;

use std::time::Instant;

use envelope_core::broker::protocol::{self, Answer, Call, VERSION};
use envelope_core::kms::Request;
use once_cell::sync::Lazy;

use crate::error::Error;
use crate::{journal, settings, shared, waiting};
pub use client::Exchange;
use client::Lost;

/// Relative to the data directory, which is the working directory of every process of PostgreSQL: a socket's name may have
/// 107 bytes, and a data directory's path more.
static SOCKET: Lazy<String> = Lazy::new(|| format!("pg_stat_tmp/envelope_pg.{VERSION}.sock"));
/// Held by the broker as long as it lives.
static LIFE_LOCK: Lazy<String> = Lazy::new(|| format!("pg_stat_tmp/envelope_pg.{VERSION}.lock"));
/// Held by the session that starts it.
static LAUNCH_LOCK: Lazy<String> = Lazy::new(|| format!("pg_stat_tmp/envelope_pg.{VERSION}.launch"));

/// Asks the broker, which is started if there is none. `None`: go on without it.
pub fn ask(request: &Request) -> Option<Exchange> {
    if !settings::broker() || shared::is_broker_avoided() {
        return None;
    }
    let settings = settings::kms();
    let call = Call::Ask { request: request.clone(), settings: protocol::fingerprint(&settings) };
    match connect().and_then(|socket| Exchange::start(socket, &call, settings.aws.timeout)) {
        Ok(exchange) => Some(exchange),
        Err(lost) => {
            go_on_without(&lost.reason);
            None
        }
    }
}

/// Leaves the broker alone for a while, and says so in the log.
pub fn go_on_without(reason: &str) {
    shared::avoid_broker();
    if shared::may_log() {
        journal::broker_lost(reason);
    }
}

/// Calls the running broker about itself; `None` if there is none.
///
/// # Errors
/// [`Error::Broker`] if it does not answer.
pub fn call_running(call: &Call) -> Result<Option<Answer>, Error> {
    let Ok(socket) = client::connect() else {
        return Ok(None);
    };
    let exchange = Exchange::start(socket, call, settings::kms().aws.timeout);
    let answer = exchange.and_then(|mut exchange| {
        loop {
            if let Some(answer) = exchange.try_take_answer()? {
                return Ok(answer);
            }
            waiting::wait(exchange.deadline().saturating_duration_since(Instant::now()));
        }
    });
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(lost) if lost.has_ended => Ok(None),
        Err(lost) => Err(Error::Broker(lost.reason)),
    }
}

fn connect() -> Result<rustix::fd::OwnedFd, Lost> {
    client::connect().or_else(|_| launch::launch())
}
