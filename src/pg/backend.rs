//! What PostgreSQL knows of this process and of its current statement.

use pgrx::pg_sys;

/// The process id.
pub fn process_id() -> i32 {
    // SAFETY: reads a variable of the process.
    unsafe { pg_sys::MyProcPid }
}

/// When the current statement and the current transaction began, in microseconds since 2000: it tells them from others of the
/// session.
pub fn statement_and_transaction_start() -> (i64, i64) {
    // SAFETY: both read variables of the backend.
    unsafe { (pg_sys::GetCurrentStatementStartTimestamp(), pg_sys::GetCurrentTransactionStartTimestamp()) }
}

/// Reads the server's configuration files again.
///
/// For the main thread of a background worker, outside any transaction.
pub fn reload_settings() {
    // SAFETY: raises an error only for lack of memory; takes the settings as a backend does between two statements.
    unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) };
}

/// Exports the main function of a background worker.
macro_rules! background_worker {
    ($symbol:ident => $body:path) => {
        /// PostgreSQL calls this in a new process.
        #[unsafe(no_mangle)]
        #[pgrx::pg_guard]
        pub extern "C-unwind" fn $symbol(_argument: pgrx::pg_sys::Datum) {
            $body();
        }
    };
}
pub(crate) use background_worker;
