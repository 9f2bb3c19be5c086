//! A scan of a table without the planner and the executor: nothing that the table's owner wrote is run, whoever scans. An index
//! on an expression, a rule, a policy or a view would be run with the rights of the caller otherwise.

use std::ops::ControlFlow;

use pgrx::pg_sys::{self, Oid};

use crate::error::{Error, Obstacle};
use crate::pg::varlena::VarlenaDatum;

const ACCESS_SHARE: i32 = pg_sys::AccessShareLock as i32;
/// How many rows share the memory that their values are detoasted into.
const ROWS_OF_A_RESET: u32 = 256;

/// Calls `row` for each row that is visible now until it says that this is enough, with the number of its block and the values of some bytea columns. Descendants
/// are not scanned. The table is resolved by its identifier, locked, and then looked at: what somebody renames or replaces while
/// this waits is not scanned in its place.
///
/// # Errors
/// [`Error::NotScanned`], and what `row` returns.
pub fn scan(
    relation: Oid,
    columns: &[i16],
    mut row: impl FnMut(u32, &[Option<VarlenaDatum<'_>>]) -> Result<ControlFlow<()>, Error>,
) -> Result<(), Error> {
    // SAFETY: a scan by the rules of PostgreSQL's table access methods: the table is locked and open from before the scan to its
    // end; the slot is of the table, and holds the row until the next one is asked for; `is_scannable` has seen that the columns
    // are there and of a variable-length type. What is detoasted goes into a memory context that is reset between rows. An error of
    // PostgreSQL's, which unwinds through here, leaves all of it to the transaction's end.
    unsafe {
        let table = pg_sys::try_relation_open(relation, ACCESS_SHARE);
        if table.is_null() {
            return Err(Error::NotScanned(Obstacle::Gone));
        }
        let result = match obstacle(table, columns) {
            Some(obstacle) => Err(Error::NotScanned(obstacle)),
            None => scan_open(table, columns, &mut row),
        };
        // The lock stays until the transaction's end.
        pg_sys::relation_close(table, pg_sys::NoLock as i32);
        result
    }
}

/// # Safety
/// `table` is open and locked.
unsafe fn obstacle(table: pg_sys::Relation, columns: &[i16]) -> Option<Obstacle> {
    // SAFETY: as this function asks for; attribute numbers are compared with the table's before they are used.
    unsafe {
        let class = &*(*table).rd_rel;
        let oid = (*table).rd_id;
        if ![pg_sys::RELKIND_RELATION, pg_sys::RELKIND_MATVIEW].contains(&(class.relkind as u8)) {
            return Some(Obstacle::NotATable);
        }
        let may_select = pg_sys::pg_class_aclcheck(oid, pg_sys::GetUserId(), pg_sys::ACL_SELECT as pg_sys::AclMode);
        if may_select != pg_sys::AclResult::ACLCHECK_OK {
            return Some(Obstacle::NoSelect);
        }
        if pg_sys::check_enable_rls(oid, pg_sys::InvalidOid, true) == pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32 {
            return Some(Obstacle::RowSecurity);
        }
        let attributes = pgrx::tupdesc::PgTupleDesc::from_pg_unchecked((*table).rd_att);
        let is_stored_bytea = |number: i16| {
            usize::try_from(number - 1).ok().and_then(|index| attributes.get(index)).is_some_and(|attribute| {
                !attribute.attisdropped
                    && attribute.attgenerated as u8 != b'v'
                    && pg_sys::getBaseType(attribute.atttypid) == pg_sys::BYTEAOID
            })
        };
        (!columns.iter().all(|number| is_stored_bytea(*number))).then_some(Obstacle::Column)
    }
}

/// # Safety
/// `table` is open and locked, and has these columns, which are of a variable-length type.
unsafe fn scan_open(
    table: pg_sys::Relation,
    columns: &[i16],
    row: &mut impl FnMut(u32, &[Option<VarlenaDatum<'_>>]) -> Result<ControlFlow<()>, Error>,
) -> Result<(), Error> {
    use pg_sys::ScanOptions as Options;
    let flags =
        Options::SO_TYPE_SEQSCAN | Options::SO_ALLOW_STRAT | Options::SO_ALLOW_SYNC | Options::SO_ALLOW_PAGEMODE;
    let last = columns.iter().copied().max().unwrap_or_default();
    // SAFETY: as this function asks for. Every access method has these three functions.
    unsafe {
        let methods = &*(*table).rd_tableam;
        let begin = methods.scan_begin.expect("each table access method scans");
        let next = methods.scan_getnextslot.expect("each table access method scans");
        let end = methods.scan_end.expect("each table access method scans");
        // Newer than the lock: ALTER TABLE can write a table anew, which to an older snapshot is empty.
        let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
        let slot = pg_sys::table_slot_create(table, std::ptr::null_mut());
        let scan = begin(table, snapshot, 0, std::ptr::null_mut(), std::ptr::null_mut(), flags);
        let mut context = pgrx::PgMemoryContexts::new("envelope_pg scan of values");
        let mut values = Vec::with_capacity(columns.len());
        let mut rows = 0_u32;
        let result = loop {
            if !next(scan, pg_sys::ScanDirection::ForwardScanDirection, slot) {
                break Ok(());
            }
            if (*slot).tts_nvalid < last {
                pg_sys::slot_getsomeattrs_int(slot, last.into());
            }
            values.clear();
            values.extend(columns.iter().map(|number| {
                let at = *number as usize - 1;
                (!*(*slot).tts_isnull.add(at)).then(|| VarlenaDatum::new(*(*slot).tts_values.add(at)))
            }));
            let block = &(*slot).tts_tid.ip_blkid;
            let block = u32::from(block.bi_hi) << 16 | u32::from(block.bi_lo);
            match context.switch_to(|_| row(block, &values)) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => break Ok(()),
                Err(error) => break Err(error),
            }
            rows += 1;
            if rows.is_multiple_of(ROWS_OF_A_RESET) {
                pg_sys::check_for_interrupts!();
                context.reset();
            }
        };
        end(scan);
        pg_sys::ExecDropSingleTupleTableSlot(slot);
        pg_sys::UnregisterSnapshot(snapshot);
        result
    }
}
