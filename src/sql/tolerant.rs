//! The SQL functions that tell a damaged value from others: one bad row must not end a report, nor become NULL in silence.

use envelope_core::error::ValueError;
use envelope_core::format::Envelope;
use pgrx::pg_sys::Datum;

use crate::ask::shared_counters;
use crate::error::Error;
use crate::pg::function_call::{FunctionCall, sql_functions};
use crate::pg::result::text_datum;
use crate::pg::room;
use crate::session;
use crate::sql::functions::{aad_argument, check_aad, decrypt_bytea, decrypt_jsonb, decrypt_text};

sql_functions! {
    env_try_decrypt_text, pg_finfo_env_try_decrypt_text => try_decrypt_text;
    env_try_decrypt_bytea, pg_finfo_env_try_decrypt_bytea => try_decrypt_bytea;
    env_try_decrypt_jsonb, pg_finfo_env_try_decrypt_jsonb => try_decrypt_jsonb;
    env_error, pg_finfo_env_error => why_not;
    env_damaged_values, pg_finfo_env_damaged_values => damaged_values;
}

fn try_decrypt_text(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    null_if_damaged(decrypt_text(call))
}

fn try_decrypt_bytea(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    null_if_damaged(decrypt_bytea(call))
}

fn try_decrypt_jsonb(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    null_if_damaged(decrypt_jsonb(call))
}

/// Counts damage. A denial, an outage, the wrong function and a value of a later release are errors as ever.
fn null_if_damaged(decrypted: Result<Option<Datum>, Error>) -> Result<Option<Datum>, Error> {
    use ValueError::{AuthenticationFailed, Malformed, NotAnEnvelope, Truncated};
    match decrypted {
        Err(
            Error::Value(NotAnEnvelope | Truncated | Malformed(_) | AuthenticationFailed)
            | Error::AadMissing
            | Error::AadSuperfluous,
        ) => {
            shared_counters::count_damaged();
            Ok(None)
        }
        decrypted => decrypted,
    }
}

/// Why a value does not open, as text; NULL if it does.
fn why_not(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let aad = aad_argument(call, 1)?;
    let Some(value) = call.bytes(0) else {
        return Ok(None);
    };
    let open = || {
        let envelope = Envelope::parse(value)?;
        check_aad(&envelope.head, aad.as_deref())?;
        let cached = session::opening_key(&envelope.head)?;
        let mut plaintext = room::zeroed(envelope.ciphertext.len())?;
        cached.data_key().open(&envelope, aad.as_deref(), &mut plaintext)?;
        Ok::<_, Error>(())
    };
    open().err().map(|error| text_datum(&error.summary())).transpose()
}

fn damaged_values(_call: &FunctionCall) -> Result<Option<Datum>, Error> {
    Ok(Some(Datum::from(shared_counters::damaged() as i64)))
}
