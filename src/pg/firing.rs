//! One call of a trigger function: the row, what the statement changes, and the row that is stored instead.

use std::ffi::{CStr, c_char};

use pgrx::pg_sys::{self, Datum, HeapTuple, TriggerData};
use pgrx::tupdesc::PgTupleDesc;

use crate::error::{Fault, TriggerError};
use crate::pg::comparing;
use crate::pg::encoding::database_text;
use crate::pg::function_call::FunctionCall;
use crate::pg::made::Made;
use crate::pg::row_value::RowValue;

/// One firing of a row trigger BEFORE INSERT or UPDATE.
pub struct Firing<'a> {
    data: &'a TriggerData,
    new: HeapTuple,
    /// Of an UPDATE.
    old: Option<HeapTuple>,
}

impl<'a> Firing<'a> {
    /// Takes the call of a trigger function.
    ///
    /// # Errors
    /// [`Fault::NotATrigger`], [`Fault::WrongKind`].
    pub fn of(call: &'a FunctionCall) -> Result<Self, TriggerError> {
        // SAFETY: `call` has a live fcinfo; a context with the tag T_TriggerData is a TriggerData that lives as long.
        let data = unsafe {
            let context = (*call.fcinfo()).context;
            if context.is_null() || !pgrx::is_a(context, pg_sys::NodeTag::T_TriggerData) {
                return Err(TriggerError { fault: Fault::NotATrigger, place: None });
            }
            &*context.cast::<TriggerData>()
        };
        // The tuples below are there for this kind only.
        let mut firing = Self { data, new: data.tg_trigtuple, old: None };
        firing.check_kind()?;
        if !firing.is_insert() {
            (firing.new, firing.old) = (data.tg_newtuple, Some(data.tg_trigtuple));
        }
        Ok(firing)
    }

    /// A trigger on fewer events, or on an UPDATE of some columns only, would let plaintext through.
    fn check_kind(&self) -> Result<(), TriggerError> {
        const ROW: i16 = pg_sys::TRIGGER_TYPE_ROW as i16;
        const BEFORE: i16 = pg_sys::TRIGGER_TYPE_BEFORE as i16;
        const INSERT: i16 = pg_sys::TRIGGER_TYPE_INSERT as i16;
        const UPDATE: i16 = pg_sys::TRIGGER_TYPE_UPDATE as i16;
        let trigger = self.trigger();
        let has = |bit| trigger.tgtype & bit != 0;
        let fault = if !has(ROW) {
            "is FOR EACH STATEMENT"
        } else if !has(BEFORE) {
            "is not BEFORE"
        } else if !has(INSERT) {
            "does not fire on INSERT"
        } else if !has(UPDATE) {
            "does not fire on UPDATE"
        } else if trigger.tgtype != ROW | BEFORE | INSERT | UPDATE {
            "fires on other events, too"
        } else if trigger.tgnattr != 0 {
            "fires on UPDATE OF some columns only"
        } else {
            return Ok(());
        };
        Err(self.error(Fault::WrongKind(fault), None))
    }

    /// The trigger's object identifier.
    pub fn trigger_oid(&self) -> pg_sys::Oid {
        self.trigger().tgoid
    }

    /// The table's.
    pub fn relation_oid(&self) -> pg_sys::Oid {
        // SAFETY: the relation is open and locked while its trigger runs.
        unsafe { (*self.data.tg_relation).rd_id }
    }

    /// The trigger's arguments, in the database's encoding.
    pub fn arguments(&self) -> Vec<&'a CStr> {
        let trigger = self.trigger();
        let count = usize::try_from(trigger.tgnargs).unwrap_or_default();
        // SAFETY: the relation cache has `tgnargs` C strings there, and keeps them while the relation is locked.
        (0..count).map(|index| unsafe { CStr::from_ptr(*trigger.tgargs.add(index)) }).collect()
    }

    /// The table's columns.
    pub fn columns(&self) -> PgTupleDesc<'a> {
        // SAFETY: the descriptor of the locked relation; PostgreSQL keeps its reference count.
        unsafe { PgTupleDesc::from_pg_unchecked(self.descriptor()) }
    }

    /// Whether a row is inserted; else one is updated.
    pub fn is_insert(&self) -> bool {
        self.data.tg_event & pg_sys::TRIGGER_EVENT_OPMASK == pg_sys::TRIGGER_EVENT_INSERT
    }

    /// The value of a column in the row as the statement wants it.
    pub fn new_value(&self, column: i32) -> Option<RowValue<'a>> {
        self.value(self.new, column)
    }

    /// The value of a column in the row before an UPDATE.
    pub fn old_value(&self, column: i32) -> Option<RowValue<'a>> {
        self.old.and_then(|old| self.value(old, column))
    }

    /// Whether a column of a type of variable length gets another value than it had; on INSERT, whether it gets one.
    pub fn is_changed(&self, column: i32) -> bool {
        match (self.old_value(column), self.new_value(column)) {
            (Some(old), Some(new)) => !old.varlena().is_same(new.varlena()),
            (old, new) => old.is_some() != new.is_some(),
        }
    }

    /// Whether an UPDATE has the column in its SET list.
    pub fn is_in_set_list(&self, column: i32) -> bool {
        // SAFETY: the set is NULL or lives as long as the call; its members are offset as PostgreSQL does.
        unsafe { pg_sys::bms_is_member(column - pg_sys::FirstLowInvalidHeapAttributeNumber, self.data.tg_updatedcols) }
    }

    /// Whether rows come as they are, from elsewhere: an apply worker of logical replication, or a restore.
    pub fn is_replica(&self) -> bool {
        // SAFETY: reads a variable of the backend.
        (unsafe { pg_sys::SessionReplicationRole }) == pg_sys::SESSION_REPLICATION_ROLE_REPLICA as i32
    }

    /// Whether an apply worker of logical replication writes the row, and could not find it again: it compares whole rows with
    /// the publisher's where the table has neither a primary key nor a replica identity index.
    pub fn is_applied_without_key(&self) -> bool {
        // SAFETY: the relation is open and locked while its trigger runs.
        unsafe {
            pg_sys::IsLogicalWorker()
                && pg_sys::RelationGetReplicaIndex(self.data.tg_relation) == pg_sys::InvalidOid
                && primary_key_index(self.data.tg_relation) == pg_sys::InvalidOid
        }
    }

    /// What compares the values of a column.
    pub fn comparing(&self, column: i32) -> Option<String> {
        // SAFETY: the relation is open and locked while its trigger runs.
        unsafe { comparing::comparing(self.data.tg_relation, column) }
    }

    /// The row to store: the new one, with other values in some columns.
    pub fn row_with(&self, changes: &[(i32, Option<Made>)]) -> Datum {
        if changes.is_empty() {
            return Datum::from(self.new);
        }
        let mut columns: Vec<i32> = changes.iter().map(|(column, _)| *column).collect();
        let descriptor = self.columns();
        let datum = |(column, value): &(i32, Option<Made>)| match value {
            Some(value) => value.datum_of_type(attribute(&descriptor, *column).atttypid),
            None => Datum::null(),
        };
        let mut values: Vec<Datum> = changes.iter().map(datum).collect();
        let mut nulls: Vec<bool> = changes.iter().map(|(_, value)| value.is_none()).collect();
        // SAFETY: three arrays of the same length, with values of the columns' types. PostgreSQL checks the numbers.
        let row = unsafe {
            pg_sys::heap_modify_tuple_by_cols(
                self.new,
                self.descriptor(),
                columns.len() as i32,
                columns.as_mut_ptr(),
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            )
        };
        Datum::from(row)
    }

    /// An error of this trigger; of one of its arguments, counted from 1.
    pub fn error(&self, fault: Fault, argument: Option<usize>) -> TriggerError {
        // SAFETY: a C string of the relation cache.
        let trigger = unsafe { text(self.trigger().tgname) };
        let argument = argument.map(|number| format!(", argument {number}")).unwrap_or_default();
        let place = format!("Trigger \"{trigger}\" of table \"{}\"{argument}.", self.table());
        TriggerError { fault, place: Some(place) }
    }

    /// The table, with its schema.
    pub fn table(&self) -> String {
        // SAFETY: the catalog row of the open relation; the lookup returns a C string, or NULL.
        let (schema, table) = unsafe {
            let row = &*(*self.data.tg_relation).rd_rel;
            let schema = pg_sys::get_namespace_name(row.relnamespace);
            (if schema.is_null() { "?".into() } else { text(schema) }, text(row.relname.data.as_ptr()))
        };
        format!("{schema}.{table}")
    }

    fn trigger(&self) -> &'a pg_sys::Trigger {
        // SAFETY: PostgreSQL sets it for every call, and keeps it for the time of the call.
        unsafe { &*self.data.tg_trigger }
    }

    fn descriptor(&self) -> pg_sys::TupleDesc {
        // SAFETY: the relation is open and locked while its trigger runs.
        unsafe { (*self.data.tg_relation).rd_att }
    }

    fn value(&self, row: HeapTuple, column: i32) -> Option<RowValue<'a>> {
        let descriptor = self.columns();
        let attribute = attribute(&descriptor, column);
        let mut is_null = false;
        // SAFETY: a row of this relation, with its descriptor, which has the column. Both live as long as the call.
        unsafe {
            let value = pg_sys::heap_getattr(row, column, self.descriptor(), &mut is_null);
            (!is_null).then(|| RowValue::new(value, attribute))
        }
    }
}

/// A column by its number, which is counted from 1.
fn attribute<'a>(columns: &'a PgTupleDesc<'_>, number: i32) -> &'a pg_sys::FormData_pg_attribute {
    let index = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
    index.and_then(|index| columns.get(index)).expect("a column of the table")
}

/// # Safety
/// `text` is a C string.
unsafe fn text(text: *const c_char) -> String {
    // SAFETY: by contract.
    database_text(unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// The index of the primary key, or InvalidOid. A deferrable one does not count, which PostgreSQL 18 wants to be told.
///
/// # Safety
/// `relation` is an open relation.
unsafe fn primary_key_index(relation: pg_sys::Relation) -> pg_sys::Oid {
    // SAFETY: as the caller promises.
    #[cfg(feature = "pg18")]
    unsafe {
        pg_sys::RelationGetPrimaryKeyIndex(relation, false)
    }
    // SAFETY: as the caller promises.
    #[cfg(not(feature = "pg18"))]
    unsafe {
        pg_sys::RelationGetPrimaryKeyIndex(relation)
    }
}
