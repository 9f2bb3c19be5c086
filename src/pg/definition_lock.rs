//! A lock on what runs when the rows of a table are read or changed: indexes, triggers, constraints, statistics.

use pgrx::pg_sys::{self, Oid};

use crate::error::{Error, Obstacle};

/// Locks a table by its identifier until the transaction's end, so that nobody adds an index, not even concurrently, a trigger, a
/// constraint or statistics to it, or renames it. VACUUM waits, too. On a standby nobody can add any but the primary.
///
/// # Errors
/// [`Error::NotScanned`] if it is gone, or the current user may not read it: then he may not keep others from it either.
pub fn lock(relation: Oid) -> Result<(), Error> {
    // SAFETY: the table is open, and locked against being dropped, from before its privileges are looked at to the stronger lock.
    // Both locks stay until the transaction's end. An error of PostgreSQL's leaves all to that.
    unsafe {
        let table = pg_sys::try_relation_open(relation, pg_sys::AccessShareLock as i32);
        if table.is_null() {
            return Err(Error::NotScanned(Obstacle::Gone));
        }
        let may_select =
            pg_sys::pg_class_aclcheck(relation, pg_sys::GetUserId(), pg_sys::ACL_SELECT as pg_sys::AclMode);
        pg_sys::relation_close(table, pg_sys::NoLock as i32);
        if may_select != pg_sys::AclResult::ACLCHECK_OK {
            return Err(Error::NotScanned(Obstacle::NoSelect));
        }
        let mode =
            if pg_sys::RecoveryInProgress() { pg_sys::RowExclusiveLock } else { pg_sys::ShareUpdateExclusiveLock };
        pg_sys::LockRelationOid(relation, mode as i32);
    }
    Ok(())
}
