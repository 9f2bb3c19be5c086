//! The thread that talks to KMS, and the interruptible wait for it.
//!
//! One thread per backend, made at the first call. All signals are blocked in it and in the threads that it makes, so that
//! PostgreSQL's handlers only ever run on the main thread. It never calls PostgreSQL. The main thread waits on its latch and
//! on an eventfd: cancel, statement_timeout and termination end the wait at once, and the request with it.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use std::{io, ptr, thread};

use envelope_core::kms::{Event, Events, Providers, Settings};
use once_cell::unsync::OnceCell;
use pgrx::prelude::*;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsRawFd, OwnedFd};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot::{self, error::TryRecvError};

use crate::error::Error;

/// The providers keep their own time limit; this much later the thread itself must be stuck.
const GRACE: Duration = Duration::from_secs(2);
/// How long an ending backend waits for the thread.
const EXIT_WAIT: Duration = Duration::from_millis(200);

type Job = Box<dyn FnOnce(Rc<Providers>) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

struct Bridge {
    /// `None` once the backend is ending.
    jobs: RefCell<Option<UnboundedSender<(Settings, Job)>>>,
    /// Readable when a request has ended.
    ended: Arc<OwnedFd>,
    events: Events,
    /// Disconnected when the thread has ended.
    alive: mpsc::Receiver<()>,
}

thread_local! {
    static BRIDGE: RefCell<OnceCell<Rc<Bridge>>> = const { RefCell::new(OnceCell::new()) };
}

/// A request that the thread is working on. Dropping it cancels the request.
pub struct Pending<T> {
    receiver: oneshot::Receiver<T>,
    deadline: Instant,
}

impl<T> Pending<T> {
    /// The result, if there is one yet.
    pub fn try_take(&mut self) -> Option<Result<T, Error>> {
        match self.receiver.try_recv() {
            Ok(result) => Some(Ok(result)),
            Err(TryRecvError::Closed) => Some(Err(Error::Bridge("It failed".into()))),
            Err(TryRecvError::Empty) if Instant::now() >= self.deadline => {
                Some(Err(Error::Bridge("It does not answer".into())))
            }
            Err(TryRecvError::Empty) => None,
        }
    }
}

/// Has the thread start a request.
///
/// # Errors
/// [`Error::Bridge`] if the thread is not there.
pub fn start<T, F>(
    settings: Settings,
    request: impl FnOnce(Rc<Providers>) -> F + Send + 'static,
) -> Result<Pending<T>, Error>
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    let bridge = bridge()?;
    let (sender, receiver) = oneshot::channel();
    let answer = Answer { sender, _wake: Wake(Arc::clone(&bridge.ended)) };
    let deadline = Instant::now() + settings.aws.timeout + GRACE;
    let job: Job = Box::new(move |providers| Box::pin(answer.with(request(providers))));
    let sent = bridge.jobs.borrow().as_ref().is_some_and(|jobs| jobs.send((settings, job)).is_ok());
    if !sent {
        return Err(Error::Bridge("It has ended".into()));
    }
    Ok(Pending { receiver, deadline })
}

/// Runs a request on the thread and waits for it.
///
/// # Errors
/// [`Error::Bridge`] if the thread is not there or does not answer. An interrupt is raised by PostgreSQL itself: the request
/// is then dropped, and the thread is ready for the next one.
pub fn call<T, F>(settings: Settings, request: impl FnOnce(Rc<Providers>) -> F + Send + 'static) -> Result<T, Error>
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    wait(start(settings, request)?)
}

/// Waits for a request.
///
/// # Errors
/// As [`call`].
pub fn wait<T>(mut pending: Pending<T>) -> Result<T, Error> {
    let bridge = bridge()?;
    loop {
        if let Some(result) = pending.try_take() {
            return result;
        }
        bridge.wait_for_event(pending.deadline.saturating_duration_since(Instant::now()));
        pg_sys::check_for_interrupts!();
    }
}

/// What happened on the thread that belongs into the log.
pub fn take_event() -> Option<Event> {
    BRIDGE.with_borrow(|bridge| bridge.get()?.events.take())
}

fn bridge() -> Result<Rc<Bridge>, Error> {
    BRIDGE.with_borrow(|bridge| bridge.get_or_try_init(Bridge::start).cloned()).map_err(unavailable)
}

fn unavailable(error: io::Error) -> Error {
    Error::Bridge(format!("It could not be started: {error}"))
}

/// The thread's end of a request. Dropped in any way, it wakes the main thread: the sender first, then the eventfd.
struct Answer<T> {
    sender: oneshot::Sender<T>,
    _wake: Wake,
}

impl<T> Answer<T> {
    async fn with(self, request: impl Future<Output = T>) {
        let Self { mut sender, _wake } = self;
        tokio::select! {
            result = request => drop(sender.send(result)),
            // The main thread has stopped waiting.
            () = sender.closed() => {}
        }
    }
}

struct Wake(Arc<OwnedFd>);

impl Drop for Wake {
    fn drop(&mut self) {
        // Fails only if the counter is full, and then it is readable.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }
}

impl Bridge {
    fn start() -> io::Result<Rc<Self>> {
        let ended = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (jobs, receiver) = unbounded_channel();
        let (alive_until, alive) = mpsc::channel();
        let events = Events::default();
        let events_of_thread = events.clone();
        let _signals = BlockedSignals::block();
        thread::Builder::new().name("envelope_pg kms".into()).spawn(move || {
            let _alive_until: mpsc::Sender<()> = alive_until;
            run(receiver, &events_of_thread);
        })?;
        // SAFETY: the function stays in memory as long as the process.
        unsafe { pg_sys::on_proc_exit(Some(stop_at_exit), pg_sys::Datum::null()) };
        Ok(Rc::new(Self { jobs: RefCell::new(Some(jobs)), ended, events, alive }))
    }

    /// Waits until a request has ended or the latch was set, and clears both.
    fn wait_for_event(&self, timeout: Duration) {
        let events =
            pg_sys::WL_LATCH_SET | pg_sys::WL_SOCKET_READABLE | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
        let timeout_ms = timeout.as_millis().saturating_add(1).min(i32::MAX as u128) as i64;
        // SAFETY: on the main thread of a backend, which has a latch; the descriptor is open as long as `self`.
        unsafe {
            let fd = self.ended.as_raw_fd();
            let woken = pg_sys::WaitLatchOrSocket(pg_sys::MyLatch, events as i32, fd, timeout_ms, wait_event());
            if woken & pg_sys::WL_LATCH_SET as i32 != 0 {
                pg_sys::ResetLatch(pg_sys::MyLatch);
            }
        }
        // Nothing to read is fine: then it was the latch.
        let _ = rustix::io::read(&*self.ended, &mut [0_u8; 8]);
    }
}

/// What pg_stat_activity shows as the wait event.
#[cfg(not(any(feature = "pg17", feature = "pg18")))]
fn wait_event() -> u32 {
    pg_sys::PG_WAIT_EXTENSION
}

/// What pg_stat_activity shows as the wait event: `EnvelopePgKms`.
#[cfg(any(feature = "pg17", feature = "pg18"))]
fn wait_event() -> u32 {
    thread_local! {
        static WAIT_EVENT: std::cell::OnceCell<u32> = const { std::cell::OnceCell::new() };
    }
    // SAFETY: on the main thread of a backend; the name is a static C string.
    WAIT_EVENT.with(|event| *event.get_or_init(|| unsafe { pg_sys::WaitEventExtensionNew(c"EnvelopePgKms".as_ptr()) }))
}

/// The thread: one single-threaded runtime for the backend's life, any number of requests at a time.
fn run(mut jobs: UnboundedReceiver<(Settings, Job)>, events: &Events) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        // The main thread finds the channel closed.
        return;
    };
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async {
        let mut current: Option<(Settings, Rc<Providers>)> = None;
        while let Some((settings, job)) = jobs.recv().await {
            let providers = match &current {
                Some((known, providers)) if *known == settings => Rc::clone(providers),
                _ => {
                    let providers = Rc::new(Providers::new(settings.clone(), events.clone()));
                    current = Some((settings, Rc::clone(&providers)));
                    providers
                }
            };
            tokio::task::spawn_local(job(providers));
        }
    });
    // A name look-up in the system's resolver cannot be interrupted, so it is not waited for.
    runtime.shutdown_background();
}

/// Ends the thread before the process runs its exit handlers. A backend that is terminated while it waits for KMS comes here
/// from within that wait, which still has the bridge.
#[pg_guard]
unsafe extern "C-unwind" fn stop_at_exit(_code: i32, _argument: pg_sys::Datum) {
    if let Some(bridge) = BRIDGE.take().into_inner() {
        drop(bridge.jobs.take());
        // An error says that it has ended; no answer in time, that a look-up in the system's resolver holds it up.
        let _ = bridge.alive.recv_timeout(EXIT_WAIT);
    }
}

/// Blocks all signals on this thread until it is dropped; threads made meanwhile inherit that.
struct BlockedSignals(libc::sigset_t);

impl BlockedSignals {
    fn block() -> Self {
        // SAFETY: sigset_t is plain data that sigfillset and pthread_sigmask fill; neither fails with these arguments.
        unsafe {
            let mut all = std::mem::zeroed();
            let mut before = std::mem::zeroed();
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
            Self(before)
        }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: sets the mask that was in force before.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, ptr::null_mut()) };
    }
}
