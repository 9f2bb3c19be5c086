//! Starting the broker: one session does it, and the others wait for that.

use std::time::{Duration, Instant};

use pgrx::bgworkers::{BackgroundWorkerBuilder, BgWorkerStartTime};
use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, flock};

use super::{LAUNCH_LOCK, client};
use crate::ask::broker::client::Lost;
use crate::ask::shared_counters;
use crate::pg::waiting;

/// It takes about 2 ms, and longer on a server that is busy.
const START_TIME: Duration = Duration::from_secs(2);
/// How often a session looks whether it is there.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Connects to the broker after starting it, or after another session has.
pub(super) fn launch() -> Result<OwnedFd, Lost> {
    let deadline = Instant::now() + START_TIME;
    let mut lock = None;
    loop {
        if let Ok(socket) = client::connect() {
            return Ok(socket);
        }
        if lock.is_none() {
            lock = try_lock()?;
            if lock.is_some() {
                // While we waited for the lock another session may have started it.
                if let Ok(socket) = client::connect() {
                    return Ok(socket);
                }
                register()?;
            }
        }
        if Instant::now() >= deadline {
            return Err(Lost::Unwell("it did not start in time".into()));
        }
        waiting::wait(LOOK_AGAIN);
    }
}

/// Has the broker started, unless another session does, and does not wait for that.
pub(super) fn begin() -> Result<(), Lost> {
    match try_lock()? {
        Some(_lock) => register(),
        None => Ok(()),
    }
}

/// The lock of the session that starts it. It goes when the descriptor is closed, whatever becomes of the session.
fn try_lock() -> Result<Option<OwnedFd>, Lost> {
    let file = shared_counters::open_own(&LAUNCH_LOCK)
        .map_err(|error| Lost::Own(format!("its lock file cannot be opened: {error}")))?;
    Ok(flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok().then_some(file))
}

fn register() -> Result<(), Lost> {
    BackgroundWorkerBuilder::new("envelope_pg broker")
        .set_library("$libdir/envelope_pg")
        .set_function("envelope_pg_broker_main")
        // On a hot standby, too.
        .set_start_time(BgWorkerStartTime::ConsistentState)
        // The next session in need starts the next one.
        .set_restart_time(None)
        .load_dynamic()
        .map(drop)
        .map_err(|_| Lost::Unwell("there is no free background worker slot (max_worker_processes)".into()))
}
