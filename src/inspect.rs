//! The SQL functions that read the head of a value: no key, no KMS, and no more of a TOASTed value than its head.

use std::ffi::CString;

use envelope_core::error::ValueError;
use envelope_core::format::{Head, SUITE, VERSION};
use envelope_core::keys::WrappedKey;
use pgrx::pg_sys::Datum;
use pgrx::prelude::*;

use crate::call::{Call, Varlena, jsonb_from_text, sql_functions, with_head};
use crate::encoding::from_utf8;
use crate::error::Error;

sql_functions! {
    env_is_envelope, pg_finfo_env_is_envelope => is_envelope;
    env_key_id, pg_finfo_env_key_id => key_id;
    env_dek_id, pg_finfo_env_dek_id => dek_id;
    env_encryption_context, pg_finfo_env_encryption_context => encryption_context;
    env_inspect, pg_finfo_env_inspect => inspect;
}

fn value(call: &Call) -> Datum {
    call.datum(0).expect("sql/ declares the function STRICT")
}

fn is_envelope(call: &Call) -> Result<Option<Datum>, Error> {
    let valid = with_head(value(call), |head| {
        head.encryption_context()?;
        head.wrapped_keys()
    });
    Ok(Some(Datum::from(valid.is_ok())))
}

fn key_id(call: &Call) -> Result<Option<Datum>, Error> {
    let wrapped_keys = with_head(value(call), |head| head.wrapped_keys())?;
    text_datum(&wrapped_keys[0].key_id).map(Some)
}

fn dek_id(call: &Call) -> Result<Option<Datum>, Error> {
    let commitment = with_head(value(call), |head| Ok(head.commitment()))?;
    Varlena::copy_of(&commitment.0).map(Some)
}

fn encryption_context(call: &Call) -> Result<Option<Datum>, Error> {
    let json = with_head(value(call), context_json)?;
    jsonb_datum(&json).map(Some)
}

fn inspect(call: &Call) -> Result<Option<Datum>, Error> {
    let row = with_head(value(call), |head| {
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
    row_datum(call, &row.columns()?).map(Some)
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

fn text_datum(text: &str) -> Result<Datum, Error> {
    Varlena::copy_of(&from_utf8(text.as_bytes())?)
}

fn jsonb_datum(json: &str) -> Result<Datum, Error> {
    let text = from_utf8(json.as_bytes())?;
    let text = CString::new(text).map_err(|_| ValueError::Malformed("encryption context"))?;
    Ok(jsonb_from_text(&text)?)
}

/// A row of the function's declared result type, no column of it NULL.
fn row_datum(call: &Call, columns: &[Datum]) -> Result<Datum, Error> {
    let nulls = vec![false; columns.len()];
    // SAFETY: the result type is the record that sql/ declares, with as many columns, of these types in this order.
    unsafe {
        let mut descriptor = std::ptr::null_mut();
        let class = pg_sys::get_call_result_type(call.fcinfo(), std::ptr::null_mut(), &mut descriptor);
        assert!(class == pg_sys::TypeFuncClass::TYPEFUNC_COMPOSITE && (*descriptor).natts as usize == columns.len());
        let descriptor = pg_sys::BlessTupleDesc(descriptor);
        let tuple = pg_sys::heap_form_tuple(descriptor, columns.as_ptr().cast_mut(), nulls.as_ptr().cast_mut());
        Ok(pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data))
    }
}
