//! The trigger function that encrypts columns: plaintext goes from a source column to its target, or is encrypted in place.
//! What is encrypted already is left alone, so that dumps, replication and upserts do not encrypt twice.

mod definition;
mod tokens;

use envelope_core::format::edited::{self, Fingerprint};
use envelope_core::format::{Envelope, ValueType};
use pgrx::pg_sys::Datum;
use zeroize::Zeroize;

use crate::error::{Error, Fault};
use crate::pg::encoding::to_utf8;
use crate::pg::firing::Firing;
use crate::pg::function_call::{FunctionCall, sql_functions};
use crate::pg::made::Made;
use crate::pg::report;
use crate::pg::room;
use crate::pg::row_value::{self, RowValue};
use crate::pg::settings;
use crate::pg::varlena::Varlena;
use crate::session;
use crate::sql::functions;
use crate::sql::inspect::is_envelope;
use definition::{Column, LastInsert, Part, Published, Rule};

sql_functions! {
    env_encrypt_trigger, pg_finfo_env_encrypt_trigger => encrypt_trigger;
}

/// Columns of the row, and what is stored in them instead.
type Changes = Vec<(i32, Option<Made>)>;

fn encrypt_trigger(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let firing = Firing::of(call)?;
    let definition = definition::of(&firing)?;
    let mut changes = Changes::new();
    for rule in &definition.rules {
        see_published(&firing, rule);
        if rule.is_in_place() {
            encrypt_in_place(&firing, rule, &mut changes)?;
        } else {
            move_to_target(&firing, rule, &mut changes)?;
        }
    }
    tokens::fill(&firing, &definition.rules, &mut changes)?;
    if !changes.is_empty() && firing.is_applied_without_key() && !definition.has_warned.replace(true) {
        report::warn(
            &format!("logical replication cannot find rows of table \"{}\" again", firing.table()),
            "It has no primary key and no replica identity index, so whole rows are compared with those of the publisher, and the \
             trigger has encrypted a column of them: an UPDATE or DELETE by the publisher is lost."
                .to_owned(),
            "Give the table a primary key, here and on the publisher, instead of REPLICA IDENTITY FULL.",
        );
    }
    Ok(Some(firing.row_with(&changes)))
}

/// Remembers what a publisher sends of the column.
fn see_published(firing: &Firing<'_>, rule: &Rule) {
    if firing.is_replica() {
        let is_sent =
            |column| firing.new_value(column).is_some() && (firing.is_insert() || firing.is_in_set_list(column));
        if is_sent(rule.source.number) {
            rule.published.set(Some(Published::Plaintext));
        } else if is_sent(rule.target.number) {
            rule.published.set(Some(Published::Value));
        }
    }
}

/// Whether a publisher that has the source only, in clear, has cleared it. One that has the target, too, leaves that out where it
/// is large and has not changed.
fn is_cleared_by_publisher(rule: &Rule, value: RowValue<'_>) -> bool {
    rule.published.get().map_or(!value.varlena().is_out_of_line(), |published| published == Published::Plaintext)
}

/// See [`is_envelope`].
fn is_value(value: RowValue<'_>) -> bool {
    is_envelope(value.varlena())
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
            changes.push((target.number, Some(encrypt(firing, rule, plaintext)?)));
            check_domain(source, None);
            changes.push((source.number, None));
            Ok(())
        }
        (None, value) if sets_source_to_null(firing, rule) => match value {
            Some(value) if firing.is_replica() && is_cleared_by_publisher(rule, value) => {
                check_domain(target, None);
                changes.push((target.number, None));
                Ok(())
            }
            _ if firing.is_replica() => Ok(()),
            _ => refuse(Fault::SourceSetToNull),
        },
        (None, Some(value)) => check_value(firing, rule, value),
        (None, None) => Ok(()),
    }
}

/// Whether an UPDATE sets the source to null, and does not say what is to become of the target. It may mean to clear it, or be
/// a client that writes back what it read; and `SET ssn = EXCLUDED.ssn` means neither. A subscriber's rows come with all columns
/// in the list but large values that have not changed, and without the columns that the publisher does not have.
fn sets_source_to_null(firing: &Firing<'_>, rule: &Rule) -> bool {
    !firing.is_insert() && firing.is_in_set_list(rule.source.number) && !firing.is_in_set_list(rule.target.number)
}

fn encrypt_in_place(firing: &Firing<'_>, rule: &Rule, changes: &mut Changes) -> Result<(), Error> {
    match firing.new_value(rule.source.number) {
        None => Ok(()),
        Some(value) if is_value(value) => check_value(firing, rule, value),
        Some(plaintext) => {
            changes.push((rule.target.number, Some(encrypt(firing, rule, plaintext)?)));
            Ok(())
        }
    }
}

/// Refuses what a target has unless it is a value that nobody has edited, and not known not to open in this row.
fn check_value(firing: &Firing<'_>, rule: &Rule, value: RowValue<'_>) -> Result<(), Error> {
    if firing.is_changed(rule.target.number) {
        check_set_value(firing, rule, value)?;
    }
    let is_kept = is_kept(firing, rule, value);
    check_binding(firing, rule, value, is_kept)?;
    if is_kept || firing.is_replica() { Ok(()) } else { check_opens(firing, rule, value) }
}

/// Refuses what a target is set to unless it is a value, and one that nobody has edited.
fn check_set_value(firing: &Firing<'_>, rule: &Rule, value: RowValue<'_>) -> Result<(), Error> {
    // A subscriber takes what the publisher has.
    if is_value(value) && firing.is_replica() {
        return Ok(());
    }
    let (target, bytes) = (&rule.target, value.varlena().bytes());
    if is_edited(firing, rule, bytes) || edited::contains_value(bytes, 1) {
        return Err(firing.error(Fault::Edited(target.name.clone()), None).into());
    }
    if !is_value(value) {
        return Err(firing.error(Fault::NotEncrypted(target.name.clone()), None).into());
    }
    Ok(())
}

/// Refuses a plaintext that is, or has in it, a value or what an edit has left of one: the statement meant to change what was
/// encrypted, and would destroy it.
fn check_plaintext(firing: &Firing<'_>, rule: &Rule, plaintext: &[u8]) -> Result<(), Error> {
    let source = &rule.source;
    // Plaintext that was there before the trigger.
    if !firing.is_insert() && rule.is_in_place() && !firing.is_changed(source.number) {
        return Ok(());
    }
    let is_bytea = rule.value_type() == ValueType::Bytea;
    if is_bytea && is_edited(firing, rule, plaintext) {
        return Err(firing.error(Fault::Edited(source.name.clone()), None).into());
    }
    let contains_value = edited::text_contains_value(plaintext)
        || (is_bytea && (edited::contains_value(plaintext, 0) || edited::is_cut_value(plaintext)));
    if contains_value && !settings::allow_double_encryption() {
        return Err(firing.error(Fault::ContainsValue(source.name.clone()), None).into());
    }
    Ok(())
}

/// Whether bytes are what an edit has left of the row's value, or of EXCLUDED's.
fn is_edited(firing: &Firing<'_>, rule: &Rule, bytes: &[u8]) -> bool {
    firing
        .old_value(rule.target.number)
        .is_some_and(|old| is_value(old) && edited::is_edit_of(bytes, old.varlena().bytes()))
        || (!firing.is_insert()
            && rule.last_insert.borrow().as_ref().is_some_and(|last| last.fingerprint.is_of_edited(bytes)))
}

/// Refuses what is known not to open in this row by its head alone.
fn check_binding(firing: &Firing<'_>, rule: &Rule, value: RowValue<'_>, is_kept: bool) -> Result<(), Error> {
    let Some(aad) = rule.aad.as_ref().filter(|_| !firing.is_insert()) else {
        return Ok(());
    };
    let target = &rule.target;
    let fault = if !is_kept {
        let is_of_another_row = match &*rule.last_insert.borrow() {
            Some(LastInsert { fingerprint, aad: Some(of_insert) }) => {
                fingerprint.is_of(value.varlena().bytes()) && aad_text(firing, aad)? != *of_insert
            }
            _ => false,
        };
        is_of_another_row.then(|| Fault::OfAnotherRow(target.name.clone()))
    } else {
        // What is no envelope was there before the trigger.
        let is_bound = value.varlena().with_head(|head| Ok(head.flags.aad)).unwrap_or(false);
        (is_bound && aad_changes(firing, aad)).then(|| Fault::AadChanged(target.name.clone()))
    };
    fault.map_or(Ok(()), |fault| Err(firing.error(fault, None).into()))
}

/// Refuses a value that does not open in this row, if the session has its data key at hand: one that was edited as bytes, or moved.
/// Nobody is asked for a data key, so that a restore needs none, and an outage keeps nobody from copying values. Whether the current
/// user may decrypt makes no difference, as nothing of the plaintext comes out.
fn check_opens(firing: &Firing<'_>, rule: &Rule, value: RowValue<'_>) -> Result<(), Error> {
    let envelope = Envelope::parse(value.varlena().bytes())?;
    let aad = match (&rule.aad, envelope.head.flags.aad) {
        (_, false) => None,
        (Some(aad), true) => Some(aad),
        // An aad of the application's own.
        (None, true) => return Ok(()),
    };
    if aad.is_some_and(|aad| has_null(firing, aad)) {
        return Ok(());
    }
    let Some(cached) = session::opening_key_at_hand(&envelope.head) else {
        return Ok(());
    };
    let aad = aad.map(|aad| aad_text(firing, aad)).transpose()?;
    let mut plaintext = Varlena::with_room(envelope.ciphertext.len())?;
    let opened = cached.data_key().open(&envelope, aad.as_deref(), plaintext.as_mut_slice());
    plaintext.as_mut_slice().zeroize();
    opened.map(drop).map_err(|_| firing.error(Fault::DoesNotOpen(rule.target.name.clone()), None).into())
}

/// Whether the target has the value that it had, perhaps under other wrapped keys: what has its nonce and its tag is it, or was
/// refused as an edit.
fn is_kept(firing: &Firing<'_>, rule: &Rule, value: RowValue<'_>) -> bool {
    let target = rule.target.number;
    !firing.is_changed(target)
        || firing.old_value(target).is_some_and(|old| {
            let (Ok(new), Ok(old)) = (Envelope::parse(value.varlena().bytes()), Envelope::parse(old.varlena().bytes()))
            else {
                return false;
            };
            new.head.nonce == old.head.nonce && new.tag == old.tag
        })
}

/// Encrypts what the source of a row is set to.
fn encrypt(firing: &Firing<'_>, rule: &Rule, source: RowValue<'_>) -> Result<Made, Error> {
    let plaintext = source.plaintext(rule.plaintext)?;
    check_plaintext(firing, rule, &plaintext)?;
    seal(firing, rule, &plaintext)
}

/// Encrypts a plaintext of a row, in the database's encoding.
fn seal(firing: &Firing<'_>, rule: &Rule, plaintext: &[u8]) -> Result<Made, Error> {
    let aad = rule.aad.as_ref().map(|aad| aad_text(firing, aad)).transpose()?;
    let plaintext = match rule.value_type() {
        ValueType::Bytea => plaintext.into(),
        ValueType::Text | ValueType::Jsonb => to_utf8(plaintext)?,
    };
    let value = functions::seal(rule.value_type(), &plaintext, &rule.key, aad.as_deref())?;
    check_domain(&rule.target, Some(&value));
    if firing.is_insert() {
        let fingerprint = Fingerprint::of(&Envelope::parse(value.varlena().bytes())?);
        rule.last_insert.replace(Some(LastInsert { fingerprint, aad }));
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
                let text = to_utf8(value.output_text(*output))?;
                room::reserve(&mut aad, text.len())?;
                aad.extend_from_slice(&text);
            }
        }
    }
    functions::check_room_for(&aad)?;
    Ok(aad)
}

/// Whether the new row has no aad.
fn has_null(firing: &Firing<'_>, parts: &[Part]) -> bool {
    parts.iter().any(|part| matches!(part, Part::Column(column, _) if firing.new_value(column.number).is_none()))
}

/// Whether an UPDATE changes the aad.
fn aad_changes(firing: &Firing<'_>, parts: &[Part]) -> bool {
    parts.iter().any(|part| match part {
        Part::Text(_) => false,
        Part::Column(column, output) => {
            let (old, new) = (firing.old_value(column.number), firing.new_value(column.number));
            old.map(|value| value.output_text(*output)) != new.map(|value| value.output_text(*output))
        }
    })
}

/// PostgreSQL checks a domain where a value becomes one, which is behind us. Raises its error.
fn check_domain(column: &Column, value: Option<&Made>) {
    if let Some(domain) = column.domain {
        row_value::check_domain(domain, value);
    }
}
