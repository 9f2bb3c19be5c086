//! The interruptible wait for descriptors: cancel, statement_timeout and termination end it at once, and so does the end of
//! the postmaster.

use std::cell::RefCell;
use std::io;
use std::time::Duration;

use once_cell::unsync::OnceCell;
use pgrx::pg_sys;
use rustix::event::epoll;
use rustix::fd::{AsFd, AsRawFd, OwnedFd};

/// Reported at once; the others are reported in the next round.
const MAX_EVENTS: usize = 32;
/// What the broker has in memory it answers sooner.
const SOON: Duration = Duration::from_micros(300);

thread_local! {
    /// All descriptors that something may come from, in one that PostgreSQL can wait for.
    static WATCHED: RefCell<OnceCell<OwnedFd>> = const { RefCell::new(OnceCell::new()) };
}

/// From now on [`wait`] ends when something new comes from this descriptor. Closing it ends that.
///
/// # Errors
/// If the system has no room for it.
pub fn watch(descriptor: impl AsFd) -> io::Result<()> {
    WATCHED.with_borrow(|watched| {
        let watched = watched.get_or_try_init(|| epoll::create(epoll::CreateFlags::CLOEXEC))?;
        // Edge-triggered: what somebody else is going to read ends the wait once and not again and again.
        let events = epoll::EventFlags::IN | epoll::EventFlags::ET;
        Ok(epoll::add(watched, descriptor, epoll::EventData::new_u64(0), events)?)
    })
}

/// Waits until something came from a watched descriptor, the latch was set or time is up. Then acts on interrupts, which may
/// raise an error. Read all there is before: only what comes later ends the wait.
pub fn wait(at_most: Duration) {
    WATCHED.with_borrow(|watched| {
        if watched.get().is_some_and(|watched| comes_soon(watched, at_most)) {
            return;
        }
        let descriptor = watched.get().map(AsRawFd::as_raw_fd);
        wait_for_latch_or(descriptor, at_most);
        if let Some(watched) = watched.get() {
            // Takes the reports off; what is read next is known to whoever reads it.
            let mut events = [const { std::mem::MaybeUninit::uninit() }; MAX_EVENTS];
            let _ = epoll::wait(watched, &mut events, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 }));
        }
    });
    pg_sys::check_for_interrupts!();
}

/// Waits for a moment, which nobody notices who interrupts: PostgreSQL's wait makes and drops a set of descriptors each time,
/// which takes longer than the broker does to answer from memory.
fn comes_soon(watched: &OwnedFd, at_most: Duration) -> bool {
    let time = at_most.min(SOON);
    let time = rustix::event::Timespec { tv_sec: 0, tv_nsec: i64::from(time.subsec_nanos()) };
    let mut events = [const { std::mem::MaybeUninit::uninit() }; MAX_EVENTS];
    epoll::wait(watched, &mut events, Some(&time)).is_ok_and(|(events, _)| !events.is_empty())
}

fn wait_for_latch_or(descriptor: Option<i32>, at_most: Duration) {
    let readable = descriptor.map_or(0, |_| pg_sys::WL_SOCKET_READABLE);
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH | readable;
    let timeout_ms = at_most.as_millis().saturating_add(1).min(i32::MAX as u128) as i64;
    let descriptor = descriptor.unwrap_or(pg_sys::PGINVALID_SOCKET);
    // SAFETY: on the main thread of a process of PostgreSQL's, which has a latch; the descriptor is open while WATCHED is
    // borrowed.
    unsafe {
        let woken = pg_sys::WaitLatchOrSocket(pg_sys::MyLatch, events as i32, descriptor, timeout_ms, wait_event());
        if woken & pg_sys::WL_LATCH_SET as i32 != 0 {
            pg_sys::ResetLatch(pg_sys::MyLatch);
        }
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
