//! What PostgreSQL knows of this process and of its current statement.

use pgrx::pg_sys;

use crate::pg::encoding::to_utf8;

/// The process id.
pub fn process_id() -> i32 {
    // SAFETY: reads a variable of the process.
    unsafe { pg_sys::MyProcPid }
}

/// The database of the session, and the role that it logged in as or was set to by SET SESSION AUTHORIZATION: their OIDs.
pub fn database_and_role() -> (u32, u32) {
    // SAFETY: both read variables of the backend; the role is set before any function of an extension can run.
    unsafe { (pg_sys::MyDatabaseId.to_u32(), pg_sys::GetSessionUserId().to_u32()) }
}

/// The name of a role; empty if it is gone. For a transaction.
pub fn role_name(role: pg_sys::Oid) -> String {
    // SAFETY: looks the role up in the catalogs; the name is NULL or a C string in the current memory context.
    let name = unsafe {
        let name = pg_sys::GetUserNameFromId(role, true);
        if name.is_null() { c"" } else { std::ffi::CStr::from_ptr(name) }
    };
    let name = to_utf8(name.to_bytes()).unwrap_or_default();
    String::from_utf8_lossy(&name).into_owned()
}

/// When the postmaster started, in microseconds since 2000: it tells a run of the server from the one before.
pub fn server_start() -> i64 {
    // SAFETY: reads a variable that the postmaster has set before it made this process.
    unsafe { pg_sys::PgStartTime }
}

unsafe extern "C" {
    // pgrx's own declarations catch errors by sigsetjmp. These raise none: they read variables of the backend, one for each value.
    safe fn GetCurrentStatementStartTimestamp() -> pg_sys::TimestampTz;
    safe fn GetCurrentTransactionStartTimestamp() -> pg_sys::TimestampTz;
}

/// When the current statement began, in microseconds since 2000: it tells it from others of the session.
pub fn statement_start() -> i64 {
    GetCurrentStatementStartTimestamp()
}

/// As [`statement_start`], and the same for the current transaction.
pub fn statement_and_transaction_start() -> (i64, i64) {
    (statement_start(), GetCurrentTransactionStartTimestamp())
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
