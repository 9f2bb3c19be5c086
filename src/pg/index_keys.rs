//! The table of index keys, read by a scan of its primary key: with nobody's rights, and without SQL that somebody else could
//! get into. And when it changes.

use std::cell::Cell;
use std::ffi::CStr;

use pgrx::pg_sys::{self, Datum};

use crate::pg::relcache;
use crate::pg::varlena::VarlenaDatum;

const SCHEMA: &CStr = c"envelope_internal";
const TABLE: &CStr = c"index_key";
/// Columns of the table, in their order; sql/search/index_key.sql declares them.
const COLUMNS: usize = 7;

/// A row of the table: a version of an index key as of one of its revisions.
pub struct Row {
    /// The version.
    pub version: i32,
    /// Counts the rows about the version; the last one is in force.
    pub revision: i32,
    /// A value without data, whose data key is the index key.
    pub stub: Box<[u8]>,
    /// Whether it makes no tokens any more.
    pub is_retired: bool,
}

thread_local! {
    /// Counts changes of the table. `None` until PostgreSQL has been told to report them.
    static CHANGES: Cell<Option<u64>> = const { Cell::new(None) };
    /// The table, once it has been read.
    static TABLE_OID: Cell<pg_sys::Oid> = const { Cell::new(pg_sys::InvalidOid) };
}

/// How often the table has changed: what was read of it holds as long as this stays the same.
pub fn changes() -> u64 {
    CHANGES.get().unwrap_or_else(|| {
        relcache::on_change(note_change);
        CHANGES.set(Some(0));
        0
    })
}

fn note_change(relation: pg_sys::Oid) {
    if relation == pg_sys::InvalidOid || relation == TABLE_OID.get() {
        CHANGES.set(CHANGES.get().map(|changes| changes + 1));
    }
}

/// Tells all sessions that the rows of the table of a trigger have changed, once the transaction commits.
pub fn tell_of_change(fcinfo: pg_sys::FunctionCallInfo) {
    // SAFETY: PostgreSQL called a function with this fcinfo; if it was as a trigger, its context is TriggerData with an open
    // relation.
    unsafe {
        if pgrx::trigger_support::called_as_trigger(fcinfo) {
            let data: *const pg_sys::TriggerData = (*fcinfo).context.cast();
            pg_sys::CacheInvalidateRelcache((*data).tg_relation);
        }
    }
}

/// The rows about an index key; none if there is none of that name, given in the database's encoding.
pub fn read(name: &[u8]) -> Vec<Row> {
    let mut rows = Vec::new();
    // SAFETY: the table is opened before it is read and closed after; an error in between ends the transaction, which closes it.
    // Its columns are of the types that sql/ declares, and none is NULL. What is read is copied.
    unsafe {
        let schema = pg_sys::get_namespace_oid(SCHEMA.as_ptr(), true);
        let oid = pg_sys::get_relname_relid(TABLE.as_ptr(), schema);
        if schema == pg_sys::InvalidOid || oid == pg_sys::InvalidOid {
            return rows;
        }
        TABLE_OID.set(oid);
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let table = pg_sys::table_open(oid, lock);
        let descriptor = (*table).rd_att;
        assert!((*descriptor).natts as usize == COLUMNS, "the table is the extension's");
        // The list of indexes has the primary key found.
        pg_sys::list_free(pg_sys::RelationGetIndexList(table));
        let mut key = std::mem::zeroed::<pg_sys::ScanKeyData>();
        let wanted = pg_sys::cstring_to_text_with_len(name.as_ptr().cast(), name.len() as i32);
        pg_sys::ScanKeyInit(
            &mut key,
            1,
            pg_sys::BTEqualStrategyNumber as u16,
            pg_sys::F_TEXTEQ.into(),
            Datum::from(wanted),
        );
        key.sk_collation = pg_sys::C_COLLATION_OID;
        // Without a snapshot it takes what is committed now, as for a catalog: what is read is kept until the table changes.
        let scan = pg_sys::systable_beginscan(table, (*table).rd_pkindex, true, std::ptr::null_mut(), 1, &mut key);
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let (mut values, mut nulls) = ([Datum::null(); COLUMNS], [false; COLUMNS]);
            pg_sys::heap_deform_tuple(tuple, descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
            rows.push(Row {
                version: values[1].value() as i32,
                revision: values[2].value() as i32,
                stub: VarlenaDatum::new(values[3]).bytes().into(),
                is_retired: values[4].value() as u8 != 0,
            });
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(table, lock);
    }
    rows
}
