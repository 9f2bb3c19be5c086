//! A look at the process once in a while, also while it waits for its client: a backend whose client is silent runs none of our
//! code, and keeps what it has in memory.
//!
//! A timeout of PostgreSQL's (utils/timeout.h) asks on the main thread, in a signal handler, whether there is something to do; if
//! so it has the backend catch up with invalidation messages, which PostgreSQL does in an ordinary transaction of its own as soon
//! as the backend waits for the client (storage/sinval.h). At its end, out of the signal handler, it is done. A backend that is
//! idle in a transaction does it when the transaction ends.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};

use once_cell::sync::OnceCell;
use pgrx::prelude::*;

/// Time between two looks.
const PERIOD_MS: c_int = 1_000;

/// The first timeout of extensions (utils/timeout.h).
#[cfg(feature = "pg14")]
const USER_TIMEOUT: c_int = 10;
#[cfg(any(feature = "pg15", feature = "pg16"))]
const USER_TIMEOUT: c_int = 12;
#[cfg(any(feature = "pg17", feature = "pg18"))]
const USER_TIMEOUT: c_int = 13;

// Not those of pgrx, which keep a way back from an ERROR: these raise none, and the handler must not touch it.
unsafe extern "C" {
    fn RegisterTimeout(id: c_int, handler: extern "C" fn()) -> c_int;
    fn enable_timeout_after(id: c_int, delay_ms: c_int);
    fn get_timeout_active(id: c_int) -> bool;
    fn HandleCatchupInterrupt();
}

/// What is looked at, and done.
pub struct Watch {
    /// Whether there is something to do. Runs in a signal handler: loads, stores and system calls only; no allocation, no lock.
    pub is_due: fn() -> bool,
    /// Does it, and says whether to go on looking. Raises no error.
    pub act: fn() -> bool,
    /// At the end of a transaction, after each look. Raises no error.
    pub tell: fn(),
}

struct Registered {
    id: c_int,
    watch: Watch,
}

static REGISTERED: OnceCell<Registered> = OnceCell::new();
/// Whether to look.
static WANTED: AtomicBool = AtomicBool::new(false);
/// Whether something was seen to do.
static DUE: AtomicBool = AtomicBool::new(false);
/// Whether there was a look since the last transaction.
static LOOKED: AtomicBool = AtomicBool::new(false);

/// Begins to look, if nobody does. The first `watch` of a process stays.
pub fn begin(watch: Watch) {
    if WANTED.swap(true, Ordering::Relaxed) {
        return;
    }
    let registered = REGISTERED.get_or_init(|| {
        // SAFETY: on the main thread of a process of PostgreSQL's, which has set its timeouts up; the handler and the callback stay
        // as long as the process. PostgreSQL gives the timeout the next free number.
        unsafe {
            pg_sys::RegisterXactCallback(Some(at_transaction_end), std::ptr::null_mut());
            Registered { id: RegisterTimeout(USER_TIMEOUT, look), watch }
        }
    });
    enable(registered);
}

/// Something is to do at the end of this transaction.
pub fn at_end_of_transaction() {
    DUE.store(true, Ordering::Relaxed);
}

fn enable(registered: &Registered) {
    // SAFETY: a timeout that was registered; on the main thread.
    unsafe {
        if !get_timeout_active(registered.id) {
            enable_timeout_after(registered.id, PERIOD_MS);
        }
    }
}

/// The handler of the timeout: on the main thread, wherever it is.
extern "C" fn look() {
    let Some(registered) = REGISTERED.get() else { return };
    if !WANTED.load(Ordering::Relaxed) {
        return;
    }
    LOOKED.store(true, Ordering::Relaxed);
    // SAFETY: what PostgreSQL's own handlers call: it sets a flag and the latch. A timeout that has fired may be enabled in its
    // handler, as PostgreSQL looks for the next one to fire after it.
    unsafe {
        if (registered.watch.is_due)() {
            DUE.store(true, Ordering::Relaxed);
            HandleCatchupInterrupt();
        }
        enable_timeout_after(registered.id, PERIOD_MS);
    }
}

/// PostgreSQL calls it at the end of each transaction. An ERROR has disabled all timeouts.
#[pg_guard]
unsafe extern "C-unwind" fn at_transaction_end(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    use pg_sys::XactEvent as Event;
    if ![Event::XACT_EVENT_COMMIT, Event::XACT_EVENT_ABORT, Event::XACT_EVENT_PREPARE].contains(&event)
        || !WANTED.load(Ordering::Relaxed)
    {
        return;
    }
    let Some(registered) = REGISTERED.get() else { return };
    if LOOKED.load(Ordering::Relaxed) {
        LOOKED.store(false, Ordering::Relaxed);
        (registered.watch.tell)();
    }
    if DUE.swap(false, Ordering::Relaxed) {
        WANTED.store((registered.watch.act)(), Ordering::Relaxed);
    }
    if WANTED.load(Ordering::Relaxed) {
        enable(registered);
    }
}
