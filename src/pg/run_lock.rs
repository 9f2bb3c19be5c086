//! One rotation of a column at a time: a session-level advisory lock that does not outlive the CALL. PostgreSQL keeps such
//! locks when a statement fails, and a procedure that commits cannot catch its own errors; so an abort gives the lock back.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;

use pgrx::prelude::*;

use crate::error::Error;

thread_local! {
    /// The keys of the locks that this session holds.
    static HELD: RefCell<Vec<i64>> = const { RefCell::new(Vec::new()) };
    static REGISTERED: Cell<bool> = const { Cell::new(false) };
}

/// Takes the lock of a key, or says that another session has it.
///
/// # Errors
/// [`Error::InTransactionBlock`] where a procedure could not commit.
pub fn try_acquire(key: i64) -> Result<bool, Error> {
    // SAFETY: reads the state of the backend's transaction.
    if unsafe { pg_sys::IsTransactionBlock() } {
        return Err(Error::InTransactionBlock);
    }
    if !REGISTERED.replace(true) {
        // SAFETY: the function stays in memory as long as the process.
        unsafe { pg_sys::RegisterXactCallback(Some(at_end_of_transaction), std::ptr::null_mut()) };
    }
    let tag = tag(key);
    // SAFETY: a complete tag, and a lock of the session, as pg_try_advisory_lock takes it.
    let result = unsafe { pg_sys::LockAcquire(&tag, pg_sys::ExclusiveLock as i32, true, true) };
    let acquired = result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL;
    if acquired {
        HELD.with_borrow_mut(|held| held.push(key));
    }
    Ok(acquired)
}

/// Gives the lock of a key back, if this session has it.
pub fn release(key: i64) {
    let at = HELD.with_borrow(|held| held.iter().position(|held| *held == key));
    if let Some(at) = at {
        HELD.with_borrow_mut(|held| held.swap_remove(at));
        release_lock(key);
    }
}

fn release_lock(key: i64) {
    let tag = tag(key);
    // SAFETY: as in `try_acquire`. Warns if somebody has called pg_advisory_unlock_all meanwhile, and else does not fail.
    unsafe { pg_sys::LockRelease(&tag, pg_sys::ExclusiveLock as i32, true) };
}

/// The tag of pg_advisory_lock(bigint).
fn tag(key: i64) -> pg_sys::LOCKTAG {
    pg_sys::LOCKTAG {
        // SAFETY: reads a variable of the backend.
        locktag_field1: unsafe { pg_sys::MyDatabaseId }.to_u32(),
        locktag_field2: (key as u64 >> 32) as u32,
        locktag_field3: key as u32,
        locktag_field4: 1,
        locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn at_end_of_transaction(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    if event == pg_sys::XactEvent::XACT_EVENT_ABORT {
        for key in HELD.take() {
            release_lock(key);
        }
    }
}
