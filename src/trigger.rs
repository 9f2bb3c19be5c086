//! The trigger function that encrypts columns: plaintext goes from a source column to its target, or is encrypted in place.
//! What is encrypted already is left alone, so that dumps, replication and upserts do not encrypt twice.

mod definition;
mod firing;

use std::ffi::CStr;

use envelope_core::format::ValueType;
use pgrx::pg_sys::{self, Datum};

use crate::error::{Error, Fault};
use crate::pg::call::{Call, bytes_of, jsonb_text, sql_functions, with_head};
use crate::pg::encoding::to_utf8;
use crate::pg::varlena::VarlenaDatum;
use crate::sql::functions;
use crate::sql::inspect::is_envelope;
use definition::{Column, LastInsert, Part, Rule};
use firing::Firing;

sql_functions! {
    env_encrypt_trigger, pg_finfo_env_encrypt_trigger => encrypt_trigger;
}

/// Columns of the row, and what is stored in them instead.
type Changes = Vec<(i32, Option<Datum>)>;

fn encrypt_trigger(call: &Call) -> Result<Option<Datum>, Error> {
    let firing = Firing::of(call)?;
    let definition = definition::of(&firing)?;
    let mut changes = Changes::new();
    for rule in &definition.rules {
        if rule.is_in_place() {
            encrypt_in_place(&firing, rule, &mut changes)?;
        } else {
            move_to_target(&firing, rule, &mut changes)?;
        }
    }
    Ok(Some(firing.row_with(&changes)))
}

/// See [`is_envelope`].
fn is_value(value: Datum) -> bool {
    // SAFETY: callers pass a bytea of the row, which lives as long as the call.
    is_envelope(unsafe { VarlenaDatum::new(value) })
}

/// A source is never stored. Where it is not given, the target stays as it is or was set.
fn move_to_target(firing: &Firing<'_>, rule: &Rule, changes: &mut Changes) -> Result<(), Error> {
    let refuse = |fault: fn(String, String) -> Fault| {
        Err(firing.error(fault(rule.source.name.clone(), rule.target.name.clone()), None).into())
    };
    let (source, target) = (&rule.source, &rule.target);
    match (firing.new_value(source.number), firing.new_value(target.number)) {
        (Some(_), Some(_)) if firing.is_changed(target.number) => refuse(Fault::BothSet),
        (Some(plaintext), _) => {
            changes.push((target.number, Some(seal(firing, rule, plaintext)?)));
            check_domain(source, None);
            changes.push((source.number, None));
            Ok(())
        }
        (None, _) if loses_an_update(firing, rule) => refuse(Fault::SourceSetToNull),
        (None, Some(value)) if firing.is_changed(target.number) && !is_value(value) => {
            Err(firing.error(Fault::NotEncrypted(target.name.clone()), None).into())
        }
        (None, Some(value)) => check_binding(firing, rule, value),
        (None, None) => Ok(()),
    }
}

/// Whether an UPDATE sets the source to null, and does not say what is to become of the target. It may mean to clear it, or be
/// a client that writes back what it read; and `SET ssn = EXCLUDED.ssn` means neither. A subscriber's rows come as they are,
/// without those values that have not changed.
fn loses_an_update(firing: &Firing<'_>, rule: &Rule) -> bool {
    // SAFETY: reads a variable of the backend.
    let is_replica = unsafe { pg_sys::SessionReplicationRole } == pg_sys::SESSION_REPLICATION_ROLE_REPLICA as i32;
    !firing.is_insert()
        && firing.is_in_set_list(rule.source.number)
        && !firing.is_in_set_list(rule.target.number)
        && !is_replica
}

fn encrypt_in_place(firing: &Firing<'_>, rule: &Rule, changes: &mut Changes) -> Result<(), Error> {
    match firing.new_value(rule.source.number) {
        None => Ok(()),
        Some(value) if is_value(value) => check_binding(firing, rule, value),
        Some(plaintext) => {
            changes.push((rule.target.number, Some(seal(firing, rule, plaintext)?)));
            Ok(())
        }
    }
}

/// Refuses what is known not to open in this row. Nothing is opened for it.
fn check_binding(firing: &Firing<'_>, rule: &Rule, value: Datum) -> Result<(), Error> {
    let Some(aad) = rule.aad.as_ref().filter(|_| !firing.is_insert()) else {
        return Ok(());
    };
    let target = &rule.target;
    let fault = if firing.is_changed(target.number) {
        let is_of_another_row = match &*rule.last_insert.borrow() {
            Some(last) => with_head(value, |head| Ok(*head.nonce))? == last.nonce && aad_text(firing, aad)? != last.aad,
            None => false,
        };
        is_of_another_row.then(|| Fault::OfAnotherRow(target.name.clone()))
    } else {
        // What is no envelope was there before the trigger.
        let is_bound = with_head(value, |head| Ok(head.flags.aad)).unwrap_or(false);
        (is_bound && aad_changes(firing, aad)).then(|| Fault::AadChanged(target.name.clone()))
    };
    fault.map_or(Ok(()), |fault| Err(firing.error(fault, None).into()))
}

/// Encrypts the plaintext of a row.
fn seal(firing: &Firing<'_>, rule: &Rule, plaintext: Datum) -> Result<Datum, Error> {
    let aad = rule.aad.as_ref().map(|aad| aad_text(firing, aad)).transpose()?;
    let plaintext = match rule.value_type {
        ValueType::Bytea => bytes_of(plaintext).into(),
        ValueType::Text => to_utf8(bytes_of(plaintext))?,
        ValueType::Jsonb => to_utf8(jsonb_text(plaintext).to_bytes())?,
    };
    let value = functions::seal(rule.value_type, &plaintext, &rule.key_id, &rule.context, aad.as_deref())?;
    check_domain(&rule.target, Some(value));
    if let Some(aad) = aad
        && firing.is_insert()
    {
        let nonce = with_head(value, |head| Ok(*head.nonce))?;
        rule.last_insert.replace(Some(LastInsert { nonce, aad }));
    }
    Ok(value)
}

/// The aad of the new row, in UTF-8.
fn aad_text(firing: &Firing<'_>, parts: &[Part]) -> Result<Vec<u8>, Error> {
    let mut aad = Vec::new();
    for part in parts {
        match part {
            Part::Text(text) => aad.extend_from_slice(text.as_bytes()),
            Part::Column(column, output) => {
                let value = firing.new_value(column.number);
                let value = value.ok_or_else(|| firing.error(Fault::NullAad(column.name.clone()), None))?;
                aad.extend_from_slice(&to_utf8(output_text(*output, value))?);
            }
        }
    }
    Ok(aad)
}

/// Whether an UPDATE changes the aad.
fn aad_changes(firing: &Firing<'_>, parts: &[Part]) -> bool {
    parts.iter().any(|part| match part {
        Part::Text(_) => false,
        Part::Column(column, output) => {
            let text = |value: Option<Datum>| value.map(|value| output_text(*output, value));
            text(firing.old_value(column.number)) != text(firing.new_value(column.number))
        }
    })
}

/// The text of a value, in the database's encoding.
fn output_text<'a>(output: pg_sys::Oid, value: Datum) -> &'a [u8] {
    // SAFETY: the output function of the value's type. It returns a C string, in a memory context that PostgreSQL resets
    // after the trigger's call.
    unsafe { CStr::from_ptr(pg_sys::OidOutputFunctionCall(output, value)) }.to_bytes()
}

/// PostgreSQL checks a domain where a value becomes one, which is behind us. Raises its error.
fn check_domain(column: &Column, value: Option<Datum>) {
    if let Some(domain) = column.domain {
        // SAFETY: a value of the domain's base type, or NULL. What is looked up for the check lives as long as the call.
        unsafe {
            let value_or_zero = value.unwrap_or(Datum::null());
            let no_cache = std::ptr::null_mut();
            pg_sys::domain_check(value_or_zero, value.is_none(), domain, no_cache, pg_sys::CurrentMemoryContext);
        }
    }
}
