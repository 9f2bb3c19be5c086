//! Error reports, from text in UTF-8 to PostgreSQL's ereport in the database's encoding.
//!
//! An ERROR leaves by longjmp, so it is raised in a frame that has nothing to drop: at the border of a SQL function, behind all of
//! Rust. pgrx's own reports take UTF-8 only.

use std::borrow::Cow;
use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr::null;

use pgrx::{PgLogLevel, pg_sys};

use crate::error::Report;
use crate::pg::encoding::printable;

unsafe extern "C-unwind" {
    // pgrx leaves these out of its bindings.
    fn errstart(elevel: c_int, domain: *const c_char) -> bool;
    fn errcode(sqlstate: c_int) -> c_int;
    fn errmsg_internal(format: *const c_char, ...) -> c_int;
    fn errdetail_internal(format: *const c_char, ...) -> c_int;
    fn errhint(format: *const c_char, ...) -> c_int;
    fn errfinish(file: *const c_char, line: c_int, function: *const c_char);
}

/// Has pgrx look for no backtrace, as it does with RUST_BACKTRACE for each error of PostgreSQL's on its way through Rust: to write one
/// takes memory, and where there is none, Rust waits for its own lock for ever.
pub fn without_backtraces() {
    // SAFETY: the library is being loaded, by the one thread of the process.
    unsafe { std::env::set_var("RUST_LIB_BACKTRACE", "0") };
}

/// A report in PostgreSQL's memory, with nothing to drop.
#[derive(Clone, Copy)]
pub struct Prepared {
    sqlstate: c_int,
    message: *const c_char,
    detail: *const c_char,
    hint: *const c_char,
}

impl Prepared {
    /// Copies a report into the current memory context, which outlives the error.
    #[must_use]
    pub fn new(report: &Report) -> Self {
        Self {
            sqlstate: sqlstate(report.sqlstate),
            message: copied(Some(&report.message)),
            detail: copied(report.detail.as_deref()),
            hint: copied(report.hint.as_deref()),
        }
    }

    /// Raises it as an ERROR.
    ///
    /// # Safety
    /// No frame between this and PostgreSQL has anything to drop.
    pub unsafe fn raise(self) -> ! {
        // SAFETY: by contract; an ERROR does not return.
        unsafe {
            self.report(PgLogLevel::ERROR);
            std::hint::unreachable_unchecked()
        }
    }

    /// # Safety
    /// At the level ERROR that of [`Self::raise`].
    unsafe fn report(self, level: PgLogLevel) {
        const TEXT: *const c_char = c"%s".as_ptr();
        // SAFETY: errstart and errfinish are a pair, with the parts of one report between them. All texts are C strings that
        // PostgreSQL copies.
        unsafe {
            if errstart(level as c_int, null()) {
                errcode(self.sqlstate);
                errmsg_internal(TEXT, self.message);
                if !self.detail.is_null() {
                    errdetail_internal(TEXT, self.detail);
                }
                if !self.hint.is_null() {
                    errhint(TEXT, self.hint);
                }
                if level as c_int == PgLogLevel::LOG_SERVER_ONLY as c_int {
                    // The text of the statement, which PostgreSQL would write behind it, can have plaintext in it.
                    pg_sys::errhidestmt(true);
                    pg_sys::errhidecontext(true);
                }
                errfinish(c"envelope_pg".as_ptr(), 0, c"envelope_pg".as_ptr());
            }
        }
    }
}

/// Writes a line to the server's log, and to no client.
pub fn log(line: &str) {
    tell(PgLogLevel::LOG_SERVER_ONLY, "00000", line, None, None);
}

/// Tells the client something.
pub fn notice(message: &str) {
    tell(PgLogLevel::NOTICE, "00000", message, None, None);
}

/// Warns the client and the server's log.
pub fn warn(message: &str, detail: String, hint: &'static str) {
    tell(PgLogLevel::WARNING, "01000", message, Some(detail), Some(hint.into()));
}

fn tell(
    level: PgLogLevel,
    sqlstate: &'static str,
    message: &str,
    detail: Option<String>,
    hint: Option<Cow<'static, str>>,
) {
    report(level, &Report { sqlstate, message: message.to_owned(), detail, hint });
}

/// Reports what is no error.
fn report(level: PgLogLevel, report: &Report) {
    assert!((level as c_int) < PgLogLevel::ERROR as c_int, "errors are raised at the border");
    // SAFETY: the level is below ERROR.
    unsafe { Prepared::new(report).report(level) }
}

/// PostgreSQL's MAKE_SQLSTATE (utils/elog.h): six bits for each character.
fn sqlstate(code: &str) -> c_int {
    code.bytes().rev().fold(0, |sqlstate, byte| (sqlstate << 6) | (c_int::from(byte) - c_int::from(b'0')) & 0x3f)
}

fn copied(text: Option<&str>) -> *const c_char {
    text.map_or(null(), |text| {
        let text: CString = printable(text);
        let text: &CStr = &text;
        // SAFETY: copies a C string into the current memory context.
        unsafe { pg_sys::pstrdup(text.as_ptr()) }
    })
}
