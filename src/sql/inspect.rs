//! The SQL functions that read the head of a value: no key, no KMS, and no more of a TOASTed value than its head.

use std::rc::Rc;

use envelope_core::error::ValueError;
use envelope_core::format::{Head, Preamble, SUITE, VERSION};
use envelope_core::keys::{WrappedKey, check_resolved, is_same_key};
use pgrx::pg_sys::Datum;

use crate::error::Error;
use crate::pg::encoding::to_utf8;
use crate::pg::function_call::{FunctionCall, sql_functions};
use crate::pg::result::{jsonb_datum, row_datum, text_array_datum, text_datum};
use crate::pg::varlena::{Varlena, VarlenaDatum};

sql_functions! {
    env_is_envelope, pg_finfo_env_is_envelope => sql_is_envelope;
    env_is_envelope_of_key, pg_finfo_env_is_envelope_of_key => is_envelope_of_key;
    env_is_same_key, pg_finfo_env_is_same_key => same_key;
    env_key_id, pg_finfo_env_key_id => key_id;
    env_key_ids, pg_finfo_env_key_ids => key_ids;
    env_dek_id, pg_finfo_env_dek_id => dek_id;
    env_encryption_context, pg_finfo_env_encryption_context => encryption_context;
    env_inspect, pg_finfo_env_inspect => inspect;
}

fn value(call: &FunctionCall) -> VarlenaDatum<'_> {
    call.varlena(0).expect("sql/ declares the function STRICT")
}

/// What was read from the head of a value.
struct Known<T> {
    preamble: Preamble,
    /// What else it depends on, if on anything.
    argument: Option<Box<[u8]>>,
    read: T,
}

/// Reads something from the head of a value, and keeps it: mostly the next value begins the same, byte for byte, and to compare is
/// much faster than to read. `read` may look at what [`Preamble`] has, and at the argument, only.
fn known<T: 'static>(
    call: &FunctionCall,
    value: VarlenaDatum<'_>,
    argument: Option<&[u8]>,
    read: impl FnOnce(&Head<'_>) -> Result<T, Error>,
) -> Result<Rc<Known<T>>, Error> {
    let make = |head: &Head<'_>| {
        Ok(Known { preamble: Preamble::of(head), argument: argument.map(Into::into), read: read(head)? })
    };
    let is_same = |earlier: &Known<T>, prefix: &[u8], value_bytes| {
        earlier.preamble.begins(prefix, value_bytes) && earlier.argument.as_deref() == argument
    };
    match value.inline_bytes() {
        Some(whole) => {
            call.keep(|earlier| is_same(earlier, whole, whole.len()), || value.with_head(|head| Ok(make(head)))?)
        }
        None => value.with_head(|head| {
            Ok(call.keep(|earlier| is_same(earlier, head.as_bytes(), head.value_bytes()), || make(head)))
        })?,
    }
}

/// Whether a bytea has the form of a value.
pub fn is_envelope(value: VarlenaDatum<'_>) -> bool {
    value.with_head(key_id_of_envelope).is_ok()
}

fn sql_is_envelope(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let known = known(call, value(call), None, |head| Ok(key_id_of_envelope(head)?));
    Ok(Some(Datum::from(known.is_ok())))
}

/// What has the form of a value has all of this.
fn key_id_of_envelope(head: &Head<'_>) -> Result<String, ValueError> {
    head.encryption_context()?;
    head.key_id()
}

/// Not STRICT: a NULL key would turn a CHECK constraint off.
fn is_envelope_of_key(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let argument = call.bytes(1).ok_or(Error::NullArgument("key_id"))?;
    let key_id = || resolved_key_id(call, 1, "key_id");
    let Some(value) = call.varlena(0) else {
        return key_id().map(|_| None);
    };
    let is_of_key =
        match known(call, value, Some(argument), |head| Ok(is_same_key(&key_id_of_envelope(head)?, &key_id()?))) {
            Ok(known) => known.read,
            // A key id that is none is an error, whatever the value.
            Err(_) => key_id().map(|_| false)?,
        };
    Ok(Some(Datum::from(is_of_key)))
}

/// Not STRICT: a NULL key must not pass for one that nothing uses.
fn same_key(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let (one, other) = (resolved_key_id(call, 0, "key_id")?, resolved_key_id(call, 1, "other_key_id")?);
    Ok(Some(Datum::from(is_same_key(&one, &other))))
}

fn resolved_key_id(call: &FunctionCall, index: usize, name: &'static str) -> Result<String, Error> {
    let key_id = to_utf8(call.bytes(index).ok_or(Error::NullArgument(name))?)?;
    // to_utf8 gives UTF-8: nothing is lost.
    let key_id = String::from_utf8_lossy(&key_id).into_owned();
    check_resolved(&key_id)?;
    Ok(key_id)
}

fn key_id(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let known = known(call, value(call), None, |head| Ok(head.key_id()?))?;
    text_datum(&known.read).map(Some)
}

fn key_ids(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let wrapped_keys = value(call).with_head(|head| head.wrapped_keys())?;
    text_array_datum(wrapped_keys.iter().map(|key| key.key_id.as_str())).map(Some)
}

fn dek_id(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let commitment = value(call).with_head(|head| Ok(head.commitment()))?;
    Varlena::copy_of(&commitment.0).map(Some)
}

fn encryption_context(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let json = value(call).with_head(context_json)?;
    jsonb_datum(&json).map(Some)
}

fn inspect(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let row = value(call).with_head(|head| {
        Ok(Row {
            type_name: head.value_type.to_string(),
            has_aad: head.flags.aad,
            is_padded: head.flags.padded,
            dek_id: head.commitment().0,
            context: context_json(head)?,
            wrapped_keys: head.wrapped_keys()?,
            nonce: *head.nonce,
            ciphertext_bytes: head.ciphertext_bytes,
            value_bytes: head.value_bytes(),
        })
    })?;
    Ok(Some(row_datum(call, &row.columns()?)))
}

/// The columns of `env_inspect`.
struct Row {
    type_name: String,
    has_aad: bool,
    is_padded: bool,
    dek_id: [u8; 32],
    context: String,
    /// One at least: [`Head::wrapped_keys`].
    wrapped_keys: Vec<WrappedKey>,
    nonce: [u8; 24],
    ciphertext_bytes: usize,
    value_bytes: usize,
}

impl Row {
    /// In the order of sql/.
    fn columns(&self) -> Result<[Datum; 14], Error> {
        const SUITE_NAME: &str = "XAES-256-GCM, HKDF-SHA-256, key commitment";
        const { assert!(SUITE == 1 && VERSION == 1, "one suite and version are known") };
        let first = &self.wrapped_keys[0];
        Ok([
            Datum::from(i32::from(VERSION)),
            text_datum(SUITE_NAME)?,
            text_datum(&self.type_name)?,
            Datum::from(self.has_aad),
            Datum::from(self.is_padded),
            Varlena::copy_of(&self.dek_id)?,
            jsonb_datum(&self.context)?,
            Datum::from(self.wrapped_keys.len() as i32),
            text_datum(&first.provider.to_string())?,
            text_datum(&first.key_id)?,
            Varlena::copy_of(&first.wrapped_dek)?,
            Varlena::copy_of(&self.nonce)?,
            Datum::from(self.ciphertext_bytes as i64),
            Datum::from(self.value_bytes as i64),
        ])
    }
}

fn context_json(head: &Head<'_>) -> Result<String, ValueError> {
    Ok(head.encryption_context()?.to_json())
}
