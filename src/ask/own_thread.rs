//! This backend's own thread for talking to KMS: for when there is no broker, and for the local provider's key file.
//!
//! One thread per backend, made at the first use. It is asked through a channel, and an eventfd says that something has ended.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use envelope_kms::{Aliases, Event, Lasting, Providers, Settings, Statistics};
use once_cell::unsync::OnceCell;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot::{self, error::TryRecvError};

use crate::ask::shared_counters;
use crate::error::Error;
use crate::pg::exit::at_exit;
use crate::pg::threads::Thread;
use crate::pg::{settings, waiting};

/// The providers keep their own time limit; this much later the thread itself must be stuck.
pub const GRACE: Duration = Duration::from_secs(2);
/// How long an ending backend waits for the thread.
const EXIT_WAIT: Duration = Duration::from_millis(200);

type Job = Box<dyn FnOnce(Rc<Providers>) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// The settings of the providers that a job is for, and how often all processes were told to make new ones by then.
type Wanted = (Settings, u64);

struct OwnThread {
    /// `None` once the backend is ending.
    jobs: RefCell<Option<UnboundedSender<(Wanted, Job)>>>,
    /// Written when a request has ended.
    ended: Arc<OwnedFd>,
    thread: Thread,
}

thread_local! {
    static OWN_THREAD: RefCell<OnceCell<Rc<OwnThread>>> = const { RefCell::new(OnceCell::new()) };
    /// What this session knows, whether or not it needs the thread.
    static LASTING: Lasting = Lasting { limiter: shared_counters::limiter(), ..Lasting::default() };
}

/// A request that the thread is working on. Dropping it cancels the request.
pub struct Pending<T> {
    receiver: oneshot::Receiver<T>,
    deadline: Instant,
}

impl<T> Pending<T> {
    /// When the thread must have answered.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The result, if there is one yet.
    pub fn try_take(&mut self) -> Option<Result<T, Error>> {
        match self.receiver.try_recv() {
            Ok(result) => Some(Ok(result)),
            Err(TryRecvError::Closed) => Some(Err(Error::OwnThread("It failed".into()))),
            Err(TryRecvError::Empty) if Instant::now() >= self.deadline => {
                Some(Err(Error::OwnThread("It does not answer".into())))
            }
            Err(TryRecvError::Empty) => None,
        }
    }
}

/// Has the thread start a request, under the settings of now.
///
/// # Errors
/// [`Error::OwnThread`] if the thread is not there.
pub fn start<T, F>(request: impl FnOnce(Rc<Providers>) -> F + Send + 'static) -> Result<Pending<T>, Error>
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    let own_thread = own_thread()?;
    let (sender, receiver) = oneshot::channel();
    let answer = Completion { sender, _wake: Wake(Arc::clone(&own_thread.ended)) };
    let settings = Settings::clone(&settings::kms_settings());
    let deadline = Instant::now() + settings.aws.timeout + GRACE;
    let wanted = (settings, shared_counters::reconnects());
    let job: Job = Box::new(move |providers| Box::pin(answer.with(request(providers))));
    let sent = own_thread.jobs.borrow().as_ref().is_some_and(|jobs| jobs.send((wanted, job)).is_ok());
    if !sent {
        return Err(Error::OwnThread("It has ended".into()));
    }
    Ok(Pending { receiver, deadline })
}

/// Runs a request on the thread and waits for it.
///
/// # Errors
/// [`Error::OwnThread`] if the thread is not there or does not answer. An interrupt is raised by PostgreSQL itself: the request
/// is then dropped, and the thread is ready for the next one.
pub fn call<T, F>(request: impl FnOnce(Rc<Providers>) -> F + Send + 'static) -> Result<T, Error>
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    let mut pending = start(request)?;
    loop {
        if let Some(result) = pending.try_take() {
            return result;
        }
        waiting::wait(pending.deadline.saturating_duration_since(Instant::now()));
    }
}

/// What happened on the thread that belongs into the log.
pub fn take_event() -> Option<Event> {
    LASTING.with(|lasting| lasting.events.take())
}

/// The counts of the thread's calls; `None` if it was never needed.
pub fn statistics() -> Option<Statistics> {
    OWN_THREAD.with_borrow(|own_thread| own_thread.get().map(|_| LASTING.with(|lasting| lasting.statistics.clone())))
}

/// What aliases stood for, as this session has heard.
pub fn aliases() -> Aliases {
    LASTING.with(|lasting| lasting.aliases.clone())
}

fn own_thread() -> Result<Rc<OwnThread>, Error> {
    OWN_THREAD.with_borrow(|own_thread| own_thread.get_or_try_init(OwnThread::start).cloned()).map_err(unavailable)
}

fn unavailable(error: io::Error) -> Error {
    Error::OwnThread(format!("It could not be started: {error}"))
}

/// The thread's end of a request. Dropped in any way, it wakes the main thread: the sender first, then the eventfd.
struct Completion<T> {
    sender: oneshot::Sender<T>,
    _wake: Wake,
}

impl<T> Completion<T> {
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

impl OwnThread {
    fn start() -> io::Result<Rc<Self>> {
        let ended = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        waiting::watch(&*ended)?;
        let (jobs, receiver) = unbounded_channel();
        let lasting = LASTING.with(Lasting::clone);
        let thread = Thread::start("envelope_pg kms", move || run(receiver, &lasting))?;
        at_exit(stop);
        Ok(Rc::new(Self { jobs: RefCell::new(Some(jobs)), ended, thread }))
    }
}

/// The thread: one single-threaded runtime for the backend's life, any number of requests at a time.
fn run(mut jobs: UnboundedReceiver<(Wanted, Job)>, lasting: &Lasting) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        // The main thread finds the channel closed.
        return;
    };
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async {
        let mut current: Option<(Wanted, Rc<Providers>)> = None;
        while let Some((wanted, job)) = jobs.recv().await {
            let providers = match &current {
                Some((known, providers)) if *known == wanted => Rc::clone(providers),
                _ => {
                    let providers = Rc::new(Providers::new(wanted.0.clone(), lasting));
                    current = Some((wanted, Rc::clone(&providers)));
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
/// from within that wait, which still has the own_thread.
fn stop() {
    if let Some(own_thread) = OWN_THREAD.take().into_inner() {
        drop(own_thread.jobs.take());
        own_thread.thread.wait_for_end(EXIT_WAIT);
    }
}
