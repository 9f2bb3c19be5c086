//! The foreign servers of the wrapper `envelope_pg`, as the catalogs have them now, and who may use them.

use std::ffi::{CStr, c_char};
use std::sync::atomic::{AtomicU64, Ordering};

use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::prelude::*;

use crate::error::Error;
use crate::pg::encoding::to_utf8;
use crate::pg::function_call::FunctionCall;

const WRAPPER: &CStr = c"envelope_pg";

/// An option of a server: its name and its value.
pub type ServerOption = (String, String);

/// A server as the catalogs have it.
pub struct Server {
    /// Identifies it, also when it is renamed.
    pub oid: Oid,
    /// Its name.
    pub name: String,
    /// Its options.
    pub options: Vec<ServerOption>,
}

/// 0 until PostgreSQL has been told to report changes; counts them from then on. Of the main thread; read for each value, which a
/// static is faster for than a thread's variable.
static CHANGES: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" {
    /// pgrx's own declaration catches errors by sigsetjmp. This one raises none, and it is called for each value.
    fn GetUserId() -> Oid;
}

/// `current_user`.
#[inline]
pub fn current_user() -> Oid {
    // SAFETY: reads a variable of the backend, on its main thread.
    unsafe { GetUserId() }
}

/// Changes whenever a server, a grant on one, a role or a membership may have changed. PostgreSQL reports what other sessions
/// have committed at the start of each statement and with each lock on a table.
#[inline]
pub fn changes() -> u64 {
    if CHANGES.load(Ordering::Relaxed) == 0 {
        use pg_sys::SysCacheIdentifier as Cache;
        CHANGES.store(1, Ordering::Relaxed);
        for cache in [Cache::FOREIGNSERVEROID, Cache::FOREIGNDATAWRAPPEROID, Cache::AUTHOID, Cache::AUTHMEMROLEMEM] {
            // SAFETY: the callback stays in memory as long as the process, and each cache is one of PostgreSQL's.
            unsafe { pg_sys::CacheRegisterSyscacheCallback(cache as i32, Some(count_change), Datum::null()) };
        }
    }
    CHANGES.load(Ordering::Relaxed)
}

#[pg_guard]
unsafe extern "C-unwind" fn count_change(_argument: Datum, _cache: i32, _hash: u32) {
    CHANGES.fetch_add(1, Ordering::Relaxed);
}

/// All servers of the wrapper.
///
/// # Errors
/// [`Error::Untranslatable`], [`Error::NotInEncoding`] for options that are not text.
pub fn all() -> Result<Vec<Server>, Error> {
    oids().into_iter().filter_map(|oid| read(oid).transpose()).collect()
}

/// Whether a role has USAGE on a server, itself or by a role that it inherits from. A superuser has.
pub fn may_use(server: Oid, role: Oid) -> bool {
    #[cfg(any(feature = "pg14", feature = "pg15"))]
    // SAFETY: looks the two up in the catalogs; the server was there a moment ago, and PostgreSQL raises an error if it is gone.
    let result = unsafe { pg_sys::pg_foreign_server_aclcheck(server, role, pg_sys::ACL_USAGE) };
    #[cfg(not(any(feature = "pg14", feature = "pg15")))]
    // SAFETY: as above.
    let result =
        unsafe { pg_sys::object_aclcheck(pg_sys::ForeignServerRelationId, server, role, pg_sys::ACL_USAGE.into()) };
    result == pg_sys::AclResult::ACLCHECK_OK
}

/// Whether a role is a superuser.
pub fn is_superuser(role: Oid) -> bool {
    // SAFETY: looks the role up in the catalogs.
    unsafe { pg_sys::superuser_arg(role) }
}

/// The options that a validator is given: an array of `name=value`.
///
/// # Errors
/// As [`all`].
pub fn validated_options(call: &FunctionCall, index: usize) -> Result<Vec<ServerOption>, Error> {
    let Some(array) = call.datum(index) else {
        return Ok(Vec::new());
    };
    // SAFETY: sql/ declares a text[]; PostgreSQL checks that it is one of elements that are not NULL, and makes the list in the
    // current memory context.
    unsafe { options(pg_sys::untransformRelOptions(array)) }
}

fn oids() -> Vec<Oid> {
    let mut oids = Vec::new();
    // SAFETY: a scan of a catalog by PostgreSQL's own rules: the table is open and locked from before the first tuple until
    // after the last; each tuple is read before the next is asked for; `srvfdw` is a fixed-length column, which is never NULL.
    unsafe {
        let wrapper = pg_sys::get_foreign_data_wrapper_oid(WRAPPER.as_ptr(), true);
        if wrapper == pg_sys::InvalidOid {
            return oids;
        }
        let table = pg_sys::table_open(pg_sys::ForeignServerRelationId, pg_sys::AccessShareLock as i32);
        let scan =
            pg_sys::systable_beginscan(table, pg_sys::InvalidOid, false, std::ptr::null_mut(), 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            let Some(header) = tuple.as_ref() else { break };
            let row = header.t_data.cast::<u8>().add(usize::from((*header.t_data).t_hoff));
            let server = &*row.cast::<pg_sys::FormData_pg_foreign_server>();
            if server.srvfdw == wrapper {
                oids.push(server.oid);
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(table, pg_sys::AccessShareLock as i32);
    }
    oids
}

/// `None`: it has been dropped meanwhile.
fn read(oid: Oid) -> Result<Option<Server>, Error> {
    // SAFETY: names and options are C strings in the current memory context.
    unsafe {
        let server = pg_sys::GetForeignServerExtended(oid, pg_sys::FSV_MISSING_OK as u16);
        let read = |server: &pg_sys::ForeignServer| {
            Ok(Server { oid, name: utf8(server.servername)?, options: options(server.options)? })
        };
        server.as_ref().map(read).transpose()
    }
}

/// # Safety
/// `list` is a list of `DefElem` whose arguments are strings.
unsafe fn options(list: *mut pg_sys::List) -> Result<Vec<ServerOption>, Error> {
    // SAFETY: as this function asks for; NULL is the empty list, and any other has `length` elements.
    unsafe {
        let Some(list) = list.as_ref() else {
            return Ok(Vec::new());
        };
        let cells = std::slice::from_raw_parts(list.elements, list.length as usize);
        let option = |cell: &pg_sys::ListCell| {
            let element = cell.ptr_value.cast::<pg_sys::DefElem>();
            Ok((utf8((*element).defname)?, utf8(pg_sys::defGetString(element))?))
        };
        cells.iter().map(option).collect()
    }
}

/// # Safety
/// `text` is a C string in the database's encoding.
unsafe fn utf8(text: *const c_char) -> Result<String, Error> {
    // SAFETY: as this function asks for.
    let text = to_utf8(unsafe { CStr::from_ptr(text) }.to_bytes())?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
