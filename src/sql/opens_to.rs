//! The SQL functions that compare a value with a plaintext: nothing of it comes out but whether they are the same.

use std::ffi::CStr;

use envelope_core::format::{Envelope, ValueType};
use pgrx::pg_sys::Datum;

use crate::error::Error;
use crate::pg::encoding::to_utf8;
use crate::pg::function_call::{FunctionCall, sql_functions};
use crate::pg::room;
use crate::session;
use crate::sql::functions::{aad_argument, check_aad};

sql_functions! {
    env_opens_to_text, pg_finfo_env_opens_to_text => opens_to_text;
    env_opens_to_bytea, pg_finfo_env_opens_to_bytea => opens_to_bytea;
    env_opens_to_jsonb, pg_finfo_env_opens_to_jsonb => opens_to_jsonb;
}

fn opens_to_text(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    call.bytes(1).map(|text| opens_to(call, ValueType::Text, &to_utf8(text)?)).transpose().map(Option::flatten)
}

fn opens_to_bytea(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    call.bytes(1).map(|bytes| opens_to(call, ValueType::Bytea, bytes)).transpose().map(Option::flatten)
}

fn opens_to_jsonb(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let compare = |json: &CStr| opens_to(call, ValueType::Jsonb, &to_utf8(json.to_bytes())?);
    call.jsonb_text(1).map(compare).transpose().map(Option::flatten)
}

/// False for whatever is wrong with the value; an error only if its data key cannot be had.
fn opens_to(call: &FunctionCall, wanted: ValueType, plaintext: &[u8]) -> Result<Option<Datum>, Error> {
    let aad = aad_argument(call, 2)?;
    let Some(value) = call.bytes(0) else {
        return Ok(None);
    };
    let opens = match Envelope::parse(value) {
        Ok(envelope) if envelope.head.value_type == wanted && check_aad(&envelope.head, aad.as_deref()).is_ok() => {
            match session::opening_key(&envelope.head) {
                Ok(cached) => {
                    let mut opened = room::zeroed(envelope.ciphertext.len())?;
                    cached.data_key().opens_to(&envelope, aad.as_deref(), plaintext, &mut opened)
                }
                Err(Error::Value(_)) => false,
                Err(error) => return Err(error),
            }
        }
        _ => false,
    };
    Ok(Some(Datum::from(opens)))
}
