//! What compares the values of a column: unique and exclusion constraints, their indexes, and foreign keys.

use std::ffi::CStr;

use pgrx::pg_sys::{self, Node};

use crate::pg::encoding::database_text;

/// The name of a constraint or unique index that compares the values of a column, in itself, in an expression, in the condition of a
/// partial index or by way of a generated column.
///
/// # Safety
/// `relation` is open and locked.
pub unsafe fn comparing(relation: pg_sys::Relation, column: i32) -> Option<String> {
    // SAFETY: by contract. The lists are copies, or of the relation cache, which keeps them while the relation is open.
    unsafe {
        let compared = with_generated(relation, column);
        for cell in cells(pg_sys::RelationGetIndexList(relation)) {
            if compares(cell.oid_value, &compared) {
                return Some(name(pg_sys::get_rel_name(cell.oid_value)));
            }
        }
        for cell in cells(pg_sys::RelationGetFKeyList(relation)) {
            let key = &*cell.ptr_value.cast::<pg_sys::ForeignKeyCacheInfo>();
            let columns = &key.conkey[..usize::try_from(key.nkeys).unwrap_or_default()];
            if columns.iter().any(|number| compared.contains(&i32::from(*number))) {
                return Some(name(pg_sys::get_constraint_name(key.conoid)));
            }
        }
        None
    }
}

/// A column, and the generated ones that are computed from it.
///
/// # Safety
/// `relation` is open and locked.
unsafe fn with_generated(relation: pg_sys::Relation, column: i32) -> Vec<i32> {
    // SAFETY: by contract; the descriptor has `num_defval` expressions, each a node as text.
    unsafe {
        let Some(constraints) = (*(*relation).rd_att).constr.as_ref().filter(|constraints| constraints.num_defval > 0)
        else {
            return vec![column];
        };
        let attributes = pgrx::tupdesc::PgTupleDesc::from_pg_unchecked((*relation).rd_att);
        let expressions = std::slice::from_raw_parts(constraints.defval, constraints.num_defval.into());
        let is_computed = |expression: &&pg_sys::AttrDefault| {
            let index = usize::try_from(expression.adnum - 1).unwrap_or_default();
            attributes.get(index).is_some_and(|attribute| attribute.attgenerated != 0)
                && reads(pg_sys::stringToNode(expression.adbin).cast(), &[column])
        };
        let generated = expressions.iter().filter(is_computed).map(|expression| expression.adnum.into());
        std::iter::once(column).chain(generated).collect()
    }
}

/// # Safety
/// `index` is an index of a table that is open and locked.
unsafe fn compares(index: pg_sys::Oid, columns: &[i32]) -> bool {
    // SAFETY: by contract; the index is locked while it is looked at.
    unsafe {
        let relation = pg_sys::index_open(index, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        let form = &*(*relation).rd_index;
        let compares = (form.indisunique || form.indisexclusion) && {
            let keys = form.indkey.values.as_slice(usize::try_from(form.indnkeyatts).unwrap_or_default());
            keys.iter().any(|number| columns.contains(&i32::from(*number)))
                || reads(pg_sys::RelationGetIndexExpressions(relation).cast(), columns)
                || reads(pg_sys::RelationGetIndexPredicate(relation).cast(), columns)
        };
        pg_sys::index_close(relation, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        compares
    }
}

/// Whether an expression reads one of some columns, or the whole row.
///
/// # Safety
/// `expression` is NULL or a live expression of one table.
unsafe fn reads(expression: *mut Node, columns: &[i32]) -> bool {
    const OFFSET: i32 = -pg_sys::FirstLowInvalidHeapAttributeNumber;
    let mut read = std::ptr::null_mut();
    // SAFETY: by contract; the set is in the memory context of the call.
    unsafe {
        pg_sys::pull_varattnos(expression, 1, &mut read);
        columns.iter().chain(&[0]).any(|number| pg_sys::bms_is_member(number + OFFSET, read))
    }
}

/// # Safety
/// `list` is NULL or a live list.
unsafe fn cells<'a>(list: *mut pg_sys::List) -> &'a [pg_sys::ListCell] {
    // SAFETY: by contract; a list has `length` cells.
    match unsafe { list.as_ref() } {
        None => &[],
        // SAFETY: as above.
        Some(list) => unsafe {
            std::slice::from_raw_parts(list.elements, usize::try_from(list.length).unwrap_or_default())
        },
    }
}

/// # Safety
/// `text` is NULL or a C string.
unsafe fn name(text: *const std::ffi::c_char) -> String {
    // SAFETY: by contract.
    if text.is_null() { "?".to_owned() } else { database_text(unsafe { CStr::from_ptr(text) }.to_bytes()) }
}
