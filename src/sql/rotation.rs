//! The SQL functions that rewrap and reencrypt values, and what the procedure `env_rotate` is made of.

use std::cell::RefCell;

use envelope_core::format::{Envelope, Head, NONCE_BYTES};
use pgrx::pg_sys::{Datum, Oid};

use crate::error::Error;
use crate::pg::definition_lock;
use crate::pg::encoding::from_utf8;
use crate::pg::function_call::{FunctionCall, sql_functions};
use crate::pg::run_lock;
use crate::pg::varlena::Varlena;
use crate::session::rewrap::{self, Change};
use crate::session::{self, Unwrapping, pipeline, proof};
use crate::sql::functions::{KeyArguments, aad_argument, check_aad, key_id_argument};
use crate::sql::splice;

/// Values of an array that are worked on at a time.
const BATCH: usize = 4_096;

sql_functions! {
    env_rewrap, pg_finfo_env_rewrap => rewrap;
    env_rewrap_warm, pg_finfo_env_rewrap_warm => rewrap_warm;
    env_rewrapped, pg_finfo_env_rewrapped => rewrapped;
    env_rewrap_check, pg_finfo_env_rewrap_check => rewrap_check;
    env_may_rewrap, pg_finfo_env_may_rewrap => may_rewrap;
    env_rewrap_target, pg_finfo_env_rewrap_target => rewrap_target;
    env_reencrypt, pg_finfo_env_reencrypt => reencrypt;
    env_reencrypt_warm, pg_finfo_env_reencrypt_warm => reencrypt_warm;
    env_is_warm, pg_finfo_env_is_warm => is_warm;
    env_prove_deks, pg_finfo_env_prove_deks => prove_deks;
    env_dek_stub, pg_finfo_env_dek_stub => dek_stub;
    env_rotation_lock, pg_finfo_env_rotation_lock => lock;
    env_rotation_unlock, pg_finfo_env_rotation_unlock => unlock;
    env_lock_definition, pg_finfo_env_lock_definition => lock_definition;
}

fn rewrap(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let to_key = key_id_argument(call, 1, "to_key")?;
    let Some(value) = call.bytes(0) else {
        return Ok(None);
    };
    let envelope = Envelope::parse(value)?;
    let changed = match rewrap::change(&envelope.head, &to_key)? {
        Change::None => Varlena::copy_of(value)?,
        Change::Rewrapped(rewrapped) => {
            let bytes = envelope.rewrapped_bytes(&rewrapped.wrapped_keys);
            let mut changed = Varlena::with_room(bytes)?;
            envelope.write_rewrapped(&rewrapped.wrapped_keys, changed.as_mut_slice());
            changed.finish(bytes)
        }
    };
    Ok(Some(changed))
}

/// Has the data keys of values rewrapped, many at a time, so that no row lock is held while KMS is asked.
fn rewrap_warm(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let to_key = key_id_argument(call, 1, "to_key")?;
    each_batch(call, |heads| match heads {
        // Tries all of its wrapped keys, where many at a time try the first one.
        [head] => rewrap::change(head, &to_key).map(drop),
        heads => rewrap::warm(heads, &to_key),
    })?;
    Ok(None)
}

/// What this session has had rewrapped already; asks nobody.
fn rewrapped(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let to_key = key_id_argument(call, 1, "to_key")?;
    let Some(stub) = call.bytes(0) else {
        return Ok(None);
    };
    let stub = Envelope::parse(stub)?;
    let Some(rewrapped) = rewrap::known(&stub.head, &to_key)? else {
        return Ok(None);
    };
    let bytes = stub.rewrapped_bytes(&rewrapped.wrapped_keys);
    let mut donor = Varlena::with_room(bytes)?;
    stub.write_rewrapped(&rewrapped.wrapped_keys, donor.as_mut_slice());
    Ok(Some(donor.finish(bytes)))
}

/// Raises what is known to keep a value from being rewrapped; asks nobody.
fn rewrap_check(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let to_key = key_id_argument(call, 1, "to_key")?;
    if let Some(value) = call.bytes(0) {
        rewrap::check(&Envelope::parse(value)?.head, &to_key)?;
    }
    Ok(None)
}

/// Whether [`rewrap_check`] has nothing against it.
fn may_rewrap(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    Ok(Some(Datum::from(rewrap_check(call).is_ok())))
}

/// Raises an error unless the key provider opens the wrapped data keys of values or stubs.
fn prove_deks(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    each_batch(call, proof::prove)?;
    Ok(None)
}

fn rewrap_target(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let to_key = key_id_argument(call, 0, "to_key")?;
    session::check_allowed(&to_key)?;
    let target = rewrap::target(&to_key)?;
    if let Some(target) = &target {
        session::check_allowed(target)?;
    }
    target.map(|key_id| Varlena::copy_of(&from_utf8(key_id.as_bytes())?)).transpose()
}

fn reencrypt(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let to_key = KeyArguments::of(call, "to_key", None)?;
    let aad = aad_argument(call, 2)?;
    let Some(value) = call.bytes(0) else {
        return Ok(None);
    };
    let envelope = Envelope::parse(value)?;
    check_aad(&envelope.head, aad.as_deref())?;
    let opener = session::opening_key(&envelope.head)?;
    let plaintext_bytes = envelope.ciphertext.len();
    // With the encryption context that the value has, whatever the one of a named key is.
    let (mut random, context) = ([0; NONCE_BYTES], opener.data_key().context());
    let sealer = to_key.choice.with_key(|key_id, _| session::sealing(key_id, context, plaintext_bytes, &mut random))?;
    let bytes = sealer.data_key().value_bytes(plaintext_bytes);
    let mut resealed = Varlena::with_room(bytes)?;
    sealer.data_key().reseal(opener.data_key(), &envelope, &random, aad.as_deref(), resealed.as_mut_slice())?;
    splice::note_sealed(sealer.data_key().identity(), resealed.as_mut_slice())?;
    Ok(Some(resealed.finish(bytes)))
}

/// Has the data keys of values unwrapped, many at a time, and those made that will seal them again.
fn reencrypt_warm(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    // NULL: they are only opened.
    let to_key = call.datum(1).map(|_| key_id_argument(call, 1, "to_key")).transpose()?;
    each_batch(call, |heads| {
        if let [head] = heads {
            // Tries all of its wrapped keys, where many at a time try the first one.
            session::opening_key(head)?;
        }
        let (warm, missing): (Vec<&Head<'_>>, Vec<&Head<'_>>) = heads.iter().partition(|head| session::is_warm(head));
        pipeline::run(missing, |head| Unwrapping::start(head), |_, unwrapping| unwrapping.wait().map(drop))?;
        for head in warm {
            // It may be refused by now.
            session::opening_key(head)?;
        }
        if let Some(to_key) = &to_key {
            for head in heads {
                session::sealing(to_key, &head.encryption_context()?, 0, &mut [0; NONCE_BYTES])?;
            }
        }
        Ok(())
    })?;
    Ok(None)
}

/// Whether the session has the data key of a value or stub, so that nobody is asked.
fn is_warm(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let value = call.varlena(0).expect("sql/ declares the function STRICT");
    Ok(Some(Datum::from(value.with_head(|head| Ok(session::is_warm(head)))?)))
}

thread_local! {
    /// The stub of the value before, which mostly is of the same data key: what was checked for that one holds for the next.
    static LAST_STUB: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What stands for a value's data key; NULL for what is not a value.
fn dek_stub(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let value = call.varlena(0).expect("sql/ declares the function STRICT");
    let stub = value.with_head(|head| {
        LAST_STUB.with_borrow_mut(|last| {
            if Envelope::parse(last).is_ok_and(|last| last.head.dek_identity() == head.dek_identity()) {
                return Ok(Varlena::copy_of(last));
            }
            head.encryption_context()?;
            head.wrapped_keys()?;
            *last = head.dek_stub();
            Ok(Varlena::copy_of(last))
        })
    });
    stub.ok().transpose()
}

fn lock(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    Ok(Some(Datum::from(run_lock::try_acquire(key_argument(call))?)))
}

fn unlock(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    run_lock::release(key_argument(call));
    Ok(None)
}

/// For the owner's code not to change while it is known to do no harm.
fn lock_definition(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    definition_lock::lock(Oid::from(call.datum(0).expect("sql/ declares the function STRICT").value() as u32))?;
    Ok(None)
}

fn key_argument(call: &FunctionCall) -> i64 {
    call.datum(0).expect("sql/ declares the function STRICT").value() as i64
}

/// Calls `work` with the heads of the values of the bytea[] argument, not too many at a time: how many there are is the
/// statement's choice.
fn each_batch(call: &FunctionCall, mut work: impl FnMut(&[Head<'_>]) -> Result<(), Error>) -> Result<(), Error> {
    let Some(values) = call.bytea_array(0) else { return Ok(()) };
    let mut heads = Vec::with_capacity(values.len().min(BATCH));
    for value in values.iter().flatten() {
        heads.push(Envelope::parse(value)?.head);
        if heads.len() == BATCH {
            work(&heads)?;
            heads.clear();
        }
    }
    if heads.is_empty() { Ok(()) } else { work(&heads) }
}
