//! Threads beside the main thread. All signals are blocked in them and in the threads that they make, so that PostgreSQL's
//! handlers only ever run on the main thread. They never call PostgreSQL.

use std::ptr;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use std::{io, thread};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;

use crate::pg::waiting;

/// A running thread. Its end ends a [`waiting::wait`].
pub struct Thread {
    /// Disconnected when the thread has ended.
    alive: mpsc::Receiver<()>,
    _ended: Arc<OwnedFd>,
}

/// In the thread: dropped in any way, it says that the thread has ended.
struct Alive {
    until: Option<mpsc::Sender<()>>,
    ended: Arc<OwnedFd>,
}

impl Drop for Alive {
    fn drop(&mut self) {
        drop(self.until.take());
        // Fails only if the counter is full, and then it is readable.
        let _ = rustix::io::write(&*self.ended, &1_u64.to_ne_bytes());
    }
}

impl Thread {
    /// Starts a thread.
    ///
    /// # Errors
    /// If the system makes no more threads.
    pub fn start(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let ended = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        waiting::watch(&*ended)?;
        let (until, alive) = mpsc::channel::<()>();
        let in_thread = Alive { until: Some(until), ended: Arc::clone(&ended) };
        let _signals = BlockedSignals::block();
        thread::Builder::new().name(name.into()).spawn(move || {
            let _in_thread = in_thread;
            body();
        })?;
        Ok(Self { alive, _ended: ended })
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.alive.try_recv() == Err(mpsc::TryRecvError::Disconnected)
    }

    /// Waits for its end, up to a bound: a look-up in the system's resolver may hold it up.
    pub fn wait_for_end(&self, at_most: Duration) {
        // An error says that it has ended, or that time is up.
        let _ = self.alive.recv_timeout(at_most);
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
