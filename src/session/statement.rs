//! How many KMS calls the current statement, transaction and session have made: to see it, and to stop a runaway statement.

use std::cell::Cell;

use envelope_core::request::Calls as AllowedCalls;

use crate::error::Error;
use crate::pg::backend::statement_and_transaction_start;
use crate::pg::settings;

thread_local! {
    static CALLS: Cell<Calls> = const { Cell::new(Calls { statement: (0, 0), transaction: (0, 0), session: 0 }) };
}

/// Calls that somebody waited for. A statement and a transaction are identified by their start.
#[derive(Clone, Copy)]
struct Calls {
    statement: (i64, u64),
    transaction: (i64, u64),
    session: u64,
}

impl Calls {
    /// Those so far, where a new statement or transaction begins at zero.
    fn now() -> Self {
        let (statement, transaction) = statement_and_transaction_start();
        let calls = CALLS.get();
        let counted = |(start, calls), current| (current, if start == current { calls } else { 0 });
        Self {
            statement: counted(calls.statement, statement),
            transaction: counted(calls.transaction, transaction),
            session: calls.session,
        }
    }

    fn change(mut self, change: impl Fn(u64) -> u64) {
        for calls in [&mut self.statement.1, &mut self.transaction.1, &mut self.session] {
            *calls = change(*calls);
        }
        CALLS.set(self);
    }
}

/// Which KMS calls the statement may still cause. One that has a limit causes none ahead of its need.
pub fn kms_calls_allowed() -> AllowedCalls {
    match settings::max_kms_calls_per_statement() {
        None => AllowedCalls::Ahead,
        Some(limit) if Calls::now().statement.1 < limit => AllowedCalls::Needed,
        Some(_) => AllowedCalls::None,
    }
}

/// Counts a KMS call that the statement waits for, or what may become one.
pub fn count_kms_call() {
    Calls::now().change(|calls| calls + 1);
}

/// More calls than `max_kms_calls_per_statement`.
pub fn too_many_kms_calls() -> Error {
    Error::TooManyKmsCalls(settings::max_kms_calls_per_statement().unwrap_or_default())
}

/// Takes a call back that was not made: the broker had the answer, or a limit or a circuit breaker kept it from being made.
pub fn uncount_kms_call() {
    Calls::now().change(|calls| calls.saturating_sub(1));
}

/// The calls of the current statement, of the current transaction and of the session.
pub fn kms_calls() -> [u64; 3] {
    let calls = Calls::now();
    [calls.statement.1, calls.transaction.1, calls.session]
}
