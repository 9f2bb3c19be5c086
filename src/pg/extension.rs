//! What the catalog says of the extension in this database.

use std::ptr::null_mut;

use pgrx::pg_sys;

use crate::pg::varlena::VarlenaDatum;

/// The version of the SQL objects, as CREATE EXTENSION and ALTER EXTENSION ... UPDATE leave it; `None` where the extension is not
/// installed. Reads the catalog by its index and not through SPI, which would count a command in the middle of the statement.
pub fn version_of_objects() -> Option<String> {
    // SAFETY: in a function that a statement calls there is a transaction. The relation is open and locked until the end, and
    // the text is copied before the scan that keeps its page pinned ends. An error in between leaves both to the transaction's
    // end. A name is compared with a C string that is shorter than NAMEDATALEN.
    unsafe {
        let relation = pg_sys::table_open(pg_sys::ExtensionRelationId, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        let mut key = pg_sys::ScanKeyData::default();
        pg_sys::ScanKeyInit(
            &mut key,
            pg_sys::Anum_pg_extension_extname as i16,
            pg_sys::BTEqualStrategyNumber as u16,
            pg_sys::F_NAMEEQ.into(),
            pg_sys::Datum::from(c"envelope_pg".as_ptr()),
        );
        let scan =
            pg_sys::systable_beginscan(relation, pg_sys::ExtensionNameIndexId.into(), true, null_mut(), 1, &mut key);
        let tuple = pg_sys::systable_getnext(scan);
        let version = if tuple.is_null() {
            None
        } else {
            let (column, mut is_null) = (pg_sys::Anum_pg_extension_extversion as i32, false);
            let datum = pg_sys::heap_getattr(tuple, column, (*relation).rd_att, &mut is_null);
            (!is_null).then(|| String::from_utf8_lossy(VarlenaDatum::new(datum).bytes()).into_owned())
        };
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        version
    }
}
