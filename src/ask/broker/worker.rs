//! The background worker: its main thread listens to PostgreSQL, another one serves the sessions.

use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io};

use envelope_broker::protocol::Status;
use envelope_broker::server::{self, Config, Host};
use envelope_kms::Lasting;
use pgrx::bgworkers::{BackgroundWorker, SignalWakeFlags};
use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, Mode, chmod, flock};
use rustix::process::{DumpableBehavior, Resource, geteuid, getrlimit, set_dumpable_behavior};
use tokio::sync::watch;

use super::{LIFE_LOCK, SOCKET, client, last_words};
use crate::ask::{journal, shared_counters};
use crate::pg::backend::{background_worker, reload_settings};
use crate::pg::report::log;
use crate::pg::threads::Thread;
use crate::pg::{settings, waiting};

/// How often the main thread looks whether there is something to log, and whether the other thread has ended.
const ROUND: Duration = Duration::from_millis(500);
/// How long a new broker waits for one that is ending.
const PREDECESSOR_TIME: Duration = Duration::from_secs(1);
/// How often it looks.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// How long the worker waits for the other thread when it ends.
const EXIT_WAIT: Duration = Duration::from_millis(200);
/// Descriptors that are not for sessions: connections to KMS, files of the server.
const OTHER_DESCRIPTORS: u64 = 128;
/// More connections than PostgreSQL has sessions are never needed.
const MAX_CONNECTIONS: u64 = 8_192;

background_worker!(envelope_pg_broker_main => work);

fn work() {
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM);
    // No core dump and no debugger of another user: this process has the keys of all sessions.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    match start() {
        Ok(Some((lock, listener))) => {
            shared_counters::trust_broker();
            serve(listener);
            // Under the lock: the socket is still ours.
            let _ = fs::remove_file(SOCKET.as_str());
            last_words::remove();
            drop(lock);
        }
        // There is another broker.
        Ok(None) => {}
        Err(error) => log(&format!("envelope_pg broker cannot listen: {error}")),
    }
}

/// The lock and the socket; `None` if there is another broker. Not without the counters: who could not be told to drop all
/// data keys must have none.
fn start() -> io::Result<Option<(OwnedFd, UnixListener)>> {
    shared_counters::check()?;
    let Some(lock) = take_lock()? else { return Ok(None) };
    Ok(Some((lock, listen()?)))
}

/// The lock of the one broker; `None` if there is another one. One that is ending is waited for.
fn take_lock() -> io::Result<Option<OwnedFd>> {
    let lock = shared_counters::open_own(&LIFE_LOCK)?;
    let deadline = Instant::now() + PREDECESSOR_TIME;
    while flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        if client::connect().is_ok() || Instant::now() >= deadline || BackgroundWorker::sigterm_received() {
            return Ok(None);
        }
        waiting::wait(LOOK_AGAIN);
    }
    Ok(Some(lock))
}

/// The socket: for the holder of the lock only.
fn listen() -> io::Result<UnixListener> {
    match fs::remove_file(SOCKET.as_str()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(SOCKET.as_str())?;
    chmod(SOCKET.as_str(), Mode::RUSR | Mode::WUSR)?;
    Ok(listener)
}

/// Serves until PostgreSQL wants the worker to end, or it was idle for long.
fn serve(listener: UnixListener) {
    let (lasting, (config, watched)) = (
        Lasting { limiter: shared_counters::limiter(), ..Lasting::default() },
        watch::channel(settings::broker_config()),
    );
    let mut written = None;
    let said = Arc::new(Mutex::new(None));
    let for_thread = (lasting.clone(), Arc::clone(&said));
    let thread = match Thread::start("envelope_pg broker", move || run(listener, watched, for_thread.0, for_thread.1)) {
        Ok(thread) => thread,
        Err(error) => return log(&format!("envelope_pg broker has no thread: {error}")),
    };
    while !thread.has_ended() && !BackgroundWorker::sigterm_received() {
        waiting::wait(ROUND);
        journal::write(&lasting.events);
        let status = said.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(status) = status {
            let now = (status, lasting.statistics.snapshot());
            if written.as_ref() != Some(&now) {
                last_words::write(&now);
                written = Some(now);
            }
        }
        if BackgroundWorker::sighup_received() {
            reload_settings();
            config.send_replace(settings::broker_config());
        }
    }
    // The thread ends when nobody can change its settings any more.
    drop(config);
    thread.wait_for_end(EXIT_WAIT);
    journal::write(&lasting.events);
}

/// The thread that serves the sessions.
fn run(listener: UnixListener, config: watch::Receiver<Config>, lasting: Lasting, said: Arc<Mutex<Option<Status>>>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return;
    };
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(MAX_CONNECTIONS);
    let host = Host {
        uid: geteuid().as_raw(),
        max_connections: descriptors.saturating_sub(OTHER_DESCRIPTORS).clamp(16, MAX_CONNECTIONS) as usize,
        signals: Box::new(shared_counters::signals),
        lasting,
        publish: Box::new(move |status| *said.lock().unwrap_or_else(PoisonError::into_inner) = Some(status)),
    };
    // An error says that the socket is of no use: the sessions find out.
    let _ = tokio::task::LocalSet::new().block_on(&runtime, server::serve(listener, config, host));
    // A name look-up in the system's resolver cannot be interrupted, so it is not waited for.
    runtime.shutdown_background();
}
