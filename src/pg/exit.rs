//! What is done when the process ends.

use std::cell::RefCell;

use pgrx::prelude::*;

thread_local! {
    static AT_EXIT: RefCell<Vec<fn()>> = const { RefCell::new(Vec::new()) };
}

/// Has a function called when this process ends, also by FATAL; the last one first. PostgreSQL calls it in the middle of
/// whatever was interrupted.
pub fn at_exit(function: fn()) {
    AT_EXIT.with_borrow_mut(|functions| functions.push(function));
    // SAFETY: the callback stays in memory as long as the process.
    unsafe { pg_sys::on_proc_exit(Some(call_last), pg_sys::Datum::null()) };
}

/// PostgreSQL calls it once for each function.
#[pg_guard]
unsafe extern "C-unwind" fn call_last(_code: i32, _argument: pg_sys::Datum) {
    let function = AT_EXIT.with_borrow_mut(Vec::pop);
    if let Some(function) = function {
        function();
    }
}
