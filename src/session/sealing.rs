//! The data key that seals a value.

use std::rc::Rc;
use std::time::Instant;

use envelope_broker::protocol::Call as BrokerCall;
use envelope_core::cache::{CachedKey, Limits, NewCurrent};
use envelope_core::context::EncryptionContext;
use envelope_core::format::NONCE_BYTES;

use envelope_core::keys::named::Use;
use envelope_core::keys::{KeyId, check_resolved};
use envelope_core::request::{Calls, KmsError, Operation, Reply, Request, SealingGrant, SealingLimits};
use envelope_core::value::DataKey;

use super::asking::{ask, heed_reply, terms};
use super::consent::{obtain_consent, served_stale};
use super::{Session, check_allowed, keep, look_up, message_keys, with_session};
use crate::ask::{broker, shared};
use crate::error::Error;
use crate::pg::{clock, settings};
use crate::session::{named_keys, statement};

/// What seals a value.
pub struct Sealing {
    /// The data key.
    pub cached: Rc<CachedKey>,
    /// Random bytes for its nonce.
    pub random: [u8; NONCE_BYTES],
}

/// The data key to seal `plaintext_bytes` bytes with, under the key that the statement names. The use is counted.
///
/// # Errors
/// Whatever keeps it from being had; [`Error::NoRandomness`].
pub fn sealing(key_id: &str, context: &EncryptionContext, plaintext_bytes: usize) -> Result<Sealing, Error> {
    let (now, limits) = (clock::now(), settings::limits());
    let (found, random) = look_up(|session| {
        session.check_allowed(key_id)?;
        let found = session.sealing.find(key_id, context, plaintext_bytes, now, &limits);
        if let Some(cached) = &found {
            session.check_allowed(cached.data_key().key_id())?;
        }
        Ok((found, session.next_random()?))
    })?;
    let cached = sealing_key(found, key_id, context, plaintext_bytes, now, &limits)?;
    named_keys::check_cached(&cached, Use::Encrypt)?;
    Ok(Sealing { cached, random })
}

/// The data key that was found, if its provider consents; else another one.
fn sealing_key(
    found: Option<Rc<CachedKey>>,
    key_id: &str,
    context: &EncryptionContext,
    plaintext_bytes: usize,
    now: Instant,
    limits: &Limits,
) -> Result<Rc<CachedKey>, Error> {
    if let Some(cached) = found {
        match obtain_consent(&cached, now) {
            Ok(()) => return Ok(cached),
            // Not this data key any more. A new one may be had: where only kms:GenerateDataKey is allowed, or when the
            // alias points to another key by now.
            Err(Error::Kms(error)) if error.kind.is_refusal() => {}
            Err(error) => return Err(error),
        }
    }
    match generate(key_id, context, plaintext_bytes) {
        // The one that was due to be replaced serves on, as an opening key would.
        Err(Error::Kms(error)) if error.kind.is_outage() => {
            let spent = with_session(|session| session.sealing.find_spent(key_id, context));
            let spent = spent.filter(|spent| spent.may_go_stale(Instant::now(), limits)).ok_or(error)?;
            check_allowed(spent.data_key().key_id())?;
            served_stale(Operation::GenerateDataKey, &spent);
            Ok(spent)
        }
        result => result,
    }
}

/// Asks for the current data key of all sessions, or without a broker has one made, and makes it the session's.
fn generate(key_id: &str, context: &EncryptionContext, plaintext_bytes: usize) -> Result<Rc<CachedKey>, Error> {
    // Before KMS is asked, if it is known already which key that is.
    if check_resolved(key_id).is_ok() {
        named_keys::check(key_id, Use::Encrypt)?;
    }
    let limits = settings::limits();
    let request = Request::SealingKey {
        key_id: KeyId::parse(key_id)?,
        context: context.clone(),
        terms: terms(&limits, limits.ttl),
        limits: SealingLimits {
            max_age: limits.max_age,
            max_uses: limits.max_uses,
            max_bytes: limits.max_bytes,
            wanted_bytes: plaintext_bytes as u64,
        },
    };
    let asked = with_session(Session::asking);
    let SealingGrant { dek, wrapped, age, lease, consent } = match ask(request)? {
        Reply::Sealing(grant) => grant,
        Reply::Opening(_) | Reply::Rewrapped(_) => unreachable!("the reply is to this request"),
    };
    let key_of_answer = wrapped.key_id.clone();
    let too_large = "the wrapped data key is too large";
    let data_key = DataKey::generated(dek, wrapped, context, &message_keys())
        .ok_or_else(|| KmsError::unexpected(too_large, Operation::GenerateDataKey, &key_of_answer))?;
    let cached = keep(data_key, consent, asked)?;
    let now = Instant::now();
    let made = asked.at.checked_sub(age).unwrap_or(asked.at);
    with_session(|session| {
        if session.seen == asked.seen {
            let new = NewCurrent { cached: Rc::clone(&cached), made, lease, plaintext_bytes };
            session.sealing.insert(key_id, context, new, now, &limits);
            cached.count_use();
        }
    });
    Ok(cached)
}

/// Replaces the current data key of a key and an encryption context, for all sessions, and returns the new one. Without a
/// context, those of all contexts are replaced when they are next needed: KMS may want a context for each data key.
///
/// # Errors
/// Whatever keeps it from being made: then the one before stays.
pub fn rotate_dek(key_id: &str, context: Option<&EncryptionContext>) -> Result<Option<Rc<CachedKey>>, Error> {
    check_allowed(key_id)?;
    // Before KMS is asked for anything.
    shared::check().map_err(Error::Shared)?;
    let key = KeyId::parse(key_id)?;
    // Also if this session does without it: others do not.
    let told = match context {
        Some(context) => replace_in_broker(key, context),
        None => broker::call_running(&BrokerCall::Retire(key)).map(drop),
    };
    match told {
        // It finds out when it is well again.
        Err(Error::Broker(_)) => {
            shared::retire().map_err(Error::Shared)?;
            shared::avoid_broker();
        }
        told => told?,
    }
    shared::rotate().map_err(Error::Shared)?;
    // The broker's new one; without a broker, this session's own.
    context.map(|context| generate(key_id, context, 0)).transpose()
}

/// Has the broker, if one runs, make a new current data key.
fn replace_in_broker(key_id: KeyId, context: &EncryptionContext) -> Result<(), Error> {
    if statement::kms_calls_allowed() == Calls::None {
        return Err(statement::too_many_kms_calls());
    }
    statement::count_kms_call();
    match broker::ask_running(Request::RotateDek { key_id, context: context.clone() }).transpose() {
        Some(reply @ (Ok(_) | Err(Error::Kms(_)))) => heed_reply(context, reply).map(drop),
        // No call was made.
        other => {
            statement::uncount_kms_call();
            other.transpose().map(drop)
        }
    }
}
