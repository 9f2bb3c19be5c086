//! What is done when the current statement has ended, in whatever way: by PostgreSQL's own clearing up behind it.

use std::cell::Cell;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};

use pgrx::prelude::*;

use crate::pg::exit::at_exit;
use crate::pg::registers;

/// Whether PostgreSQL is to say so when the current statement has ended. Of the main thread; read for each value, which a static is
/// faster for than a thread's variable.
static AWAITED: AtomicBool = AtomicBool::new(false);

thread_local! {
    static PENDING: Cell<Option<fn()>> = const { Cell::new(None) };
    static REGISTERED: Cell<bool> = const { Cell::new(false) };
}

/// Has a function called once, when the current statement of the client has ended, or failed, or the process ends. There is no
/// transaction then, and it must not raise an error. In a process without a client, which is a parallel worker or another
/// background worker, it is called when the transaction ends.
pub fn at_statement_end(function: fn()) {
    PENDING.set(Some(function));
    clear_registers();
}

/// Has the vector registers cleared when the current statement has ended: before a signal that comes while the session waits for its
/// client writes them to the stack, where no later wiping may reach.
#[inline]
pub fn clear_registers() {
    if !AWAITED.load(Ordering::Relaxed) {
        await_end();
    }
}

#[inline(never)]
fn await_end() {
    if !REGISTERED.replace(true) {
        at_exit(ended);
        // SAFETY: the callback stays in memory as long as the process.
        unsafe { pg_sys::RegisterXactCallback(Some(transaction_ended), std::ptr::null_mut()) };
    }
    // SAFETY: PostgreSQL resets the context of a message when it is done with it, before it reads the next one. The callback is
    // allocated in it, so it is there until then.
    unsafe {
        let context = pg_sys::MessageContext;
        if !context.is_null() {
            let callback: *mut pg_sys::MemoryContextCallback =
                pg_sys::MemoryContextAllocZero(context, size_of::<pg_sys::MemoryContextCallback>()).cast();
            (*callback).func = Some(message_ended);
            pg_sys::MemoryContextRegisterResetCallback(context, callback);
        }
    }
    AWAITED.store(true, Ordering::Relaxed);
}

fn ended() {
    if AWAITED.swap(false, Ordering::Relaxed) {
        registers::clear();
        if let Some(function) = PENDING.take() {
            function();
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn message_ended(_argument: *mut c_void) {
    ended();
}

#[pg_guard]
unsafe extern "C-unwind" fn transaction_ended(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    use pg_sys::XactEvent as Event;
    let has_ended = [
        Event::XACT_EVENT_COMMIT,
        Event::XACT_EVENT_PARALLEL_COMMIT,
        Event::XACT_EVENT_ABORT,
        Event::XACT_EVENT_PARALLEL_ABORT,
    ]
    .contains(&event);
    // SAFETY: reads a variable of the process.
    if has_ended && unsafe { pg_sys::MessageContext.is_null() } {
        ended();
    }
}
