//! How many KMS calls the current statement has made, so that a runaway one can be stopped.

use std::cell::Cell;

use pgrx::pg_sys;

use crate::error::Error;
use crate::settings;

thread_local! {
    /// The start of the statement, which identifies it, and its calls so far.
    static CALLS: Cell<(pg_sys::TimestampTz, u64)> = const { Cell::new((0, 0)) };
}

/// Counts a KMS call that the statement waits for.
///
/// # Errors
/// [`Error::TooManyKmsCalls`] instead of one more than `max_kms_calls_per_statement`.
pub fn count_kms_call() -> Result<(), Error> {
    // SAFETY: reads a variable of the backend.
    let statement = unsafe { pg_sys::GetCurrentStatementStartTimestamp() };
    let calls = match CALLS.get() {
        (counted, calls) if counted == statement => calls + 1,
        _ => 1,
    };
    match settings::max_kms_calls_per_statement() {
        Some(limit) if calls > limit => Err(Error::TooManyKmsCalls(limit)),
        _ => {
            CALLS.set((statement, calls));
            Ok(())
        }
    }
}

/// Takes a call back that a circuit breaker kept from being made.
pub fn uncount_kms_call() {
    let (statement, calls) = CALLS.get();
    CALLS.set((statement, calls.saturating_sub(1)));
}
