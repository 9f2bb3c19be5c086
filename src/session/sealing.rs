//! The data key that seals a value.

use std::rc::Rc;

use envelope_broker::protocol::Command;
use envelope_core::cache::CachedKey;
use envelope_core::context::EncryptionContext;
use envelope_core::format::NONCE_BYTES;
use envelope_core::keys::KeyId;
use envelope_core::keys::named::Use;
use envelope_core::request::Request;

use super::named_keys::Verdict;
use super::surroundings::Here;
use super::{asking, audit, check_allowed, named_keys, quickly, with_policy, with_session};
use crate::ask::{broker, journal, shared_counters};
use crate::error::Error;

/// The data key to seal `plaintext_bytes` bytes with, under the key that the statement names. The use is counted, and `random`
/// filled for the value's nonce.
///
/// # Errors
/// Whatever keeps it from being had; [`Error::NoRandomness`].
// Inlined, as what is returned in memory is copied in other pieces than it was written in (docs/PERFORMANCE.md).
#[inline(always)]
pub fn sealing(
    key_id: &str,
    context: &EncryptionContext,
    plaintext_bytes: usize,
    random: &mut [u8; NONCE_BYTES],
) -> Result<Rc<CachedKey>, Error> {
    find(key_id, context, plaintext_bytes, random).inspect_err(audit::note)
}

#[inline(always)]
fn find(
    key_id: &str,
    context: &EncryptionContext,
    plaintext_bytes: usize,
    random: &mut [u8; NONCE_BYTES],
) -> Result<Rc<CachedKey>, Error> {
    loop {
        let ready = quickly(|session| {
            let cached = session.policy.seal_quickly(key_id, context, plaintext_bytes, &Here)?;
            session.draw(random).ok().map(|()| cached)
        });
        let cached = match ready {
            Some(cached) => cached,
            None => {
                let cached = asking::drive_from(|policy| policy.seal(key_id, context, plaintext_bytes, &Here))?;
                with_session(|session| session.draw(random))?;
                cached
            }
        };
        if named_keys::check_cached(&cached, Use::Encrypt)? == Verdict::Good {
            return Ok(cached);
        }
    }
}

/// Replaces the current data key of a key and an encryption context, for all sessions, and returns the new one. Without a
/// context, those of all contexts are replaced when they are next needed: KMS may want a context for each data key.
///
/// # Errors
/// Whatever keeps it from being made: then the one before stays.
pub fn rotate_dek(key_id: &str, context: Option<&EncryptionContext>) -> Result<Option<Rc<CachedKey>>, Error> {
    check_allowed(key_id)?;
    // Before KMS is asked for anything.
    shared_counters::check().map_err(Error::SharedCounters)?;
    let key = KeyId::parse(key_id)?;
    // Also if this session does without it: others do not.
    let told = match context {
        Some(context) => replace_in_broker(key, context),
        None => broker::send_to_running(&Command::Retire(key)).map(drop),
    };
    match told {
        // It finds out when it is well again.
        Err(Error::Broker(_)) => {
            shared_counters::retire().map_err(Error::SharedCounters)?;
            shared_counters::avoid_broker();
        }
        told => told?,
    }
    shared_counters::announce_replacement().map_err(Error::SharedCounters)?;
    // The broker's new one; without a broker, this session's own.
    let renew = |context| asking::drive(with_policy(|policy| policy.renew(key_id, context, &Here))?);
    context.map(renew).transpose()
}

/// Has the broker, if one runs, make a new current data key.
fn replace_in_broker(key_id: KeyId, context: &EncryptionContext) -> Result<(), Error> {
    let request = Request::ReplaceDek { key_id, context: context.clone() };
    with_policy(|policy| policy.begin_call(&Here))?;
    let reply = match broker::ask_running(request).transpose() {
        Some(Ok(reply)) => Ok(reply),
        Some(Err(Error::Kms(error))) => Err(error),
        // No call was made.
        other => {
            with_policy(|policy| policy.budget().uncount(&Here));
            return other.transpose().map(drop);
        }
    };
    journal::write_events();
    let reply = with_policy(|policy| policy.end_call(context, reply, &Here));
    asking::act_on_notes();
    Ok(reply.map(drop)?)
}
