//! Notices that a table has changed.

use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::prelude::*;

/// Has `changed` called, as long as the process lives, when a table, its columns or its triggers have changed, or its rows if
/// somebody says so; with 0 for all tables. It must not call PostgreSQL.
pub fn on_change(changed: fn(Oid)) {
    // SAFETY: the callback stays in memory as long as the process.
    unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(call), Datum::from(changed as *mut ())) };
}

#[pg_guard]
unsafe extern "C-unwind" fn call(argument: Datum, relation: Oid) {
    // SAFETY: PostgreSQL passes what `on_change` registered this with.
    let changed = unsafe { std::mem::transmute::<*mut (), fn(Oid)>(argument.cast_mut_ptr()) };
    changed(relation);
}
