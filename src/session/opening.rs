//! The data key that opens a value.

use std::rc::Rc;

use envelope_core::cache::CachedKey;
use envelope_core::context::EncryptionContext;
use envelope_core::error::ValueError;
use envelope_core::format::Head;
use envelope_core::keys::WrappedKey;
use envelope_core::keys::named::Use;
use envelope_core::request::{KmsError, KmsErrorKind, OpeningGrant, Reply};
use envelope_core::value::DataKey;

use super::asking::{heed_reply, opening_grant, start, unwrap_request};
use super::consent::obtain_consent;
use super::{Asked, Session, check_allowed, keep, look_up, message_keys, with_session};
use crate::ask;
use crate::error::Error;
use crate::pg::{clock, settings};
use crate::session::named_keys;

/// The data key that opens a value.
///
/// # Errors
/// Whatever keeps it from being had.
pub fn opening_key(head: &Head<'_>) -> Result<Rc<CachedKey>, Error> {
    let found = look_up(|session| {
        let found = session.opening.find(head.dek_identity());
        if let Some(cached) = &found {
            session.check_allowed(cached.data_key().key_id())?;
        }
        Ok(found)
    })?;
    match found {
        Some(cached) => {
            named_keys::check_cached(&cached, Use::Decrypt)?;
            obtain_consent(&cached, clock::now()).map_err(one_message)?;
            Ok(cached)
        }
        None => unwrap_for(head),
    }
}

/// Has the data key of a value unwrapped: by the first of its wrapped keys that can be.
fn unwrap_for(head: &Head<'_>) -> Result<Rc<CachedKey>, Error> {
    let context = head.encryption_context()?;
    let mut first_error = None;
    for wrapped in head.wrapped_keys()? {
        match Unwrapping::of(head, wrapped, &context).and_then(|unwrapping| unwrapping.wait(head)) {
            Ok(cached) => {
                cached.count_use();
                return Ok(cached);
            }
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.expect("a value has one wrapped key at least"))
}

/// A data key that is being unwrapped. Dropping it gives that up.
pub struct Unwrapping {
    wrapped: WrappedKey,
    asked: Asked,
    /// The request.
    pub pending: ask::Pending,
}

impl Unwrapping {
    /// Starts to have the data key of a value unwrapped: the first of its wrapped keys.
    ///
    /// # Errors
    /// Whatever keeps it from being asked for.
    pub fn start(head: &Head<'_>) -> Result<Self, Error> {
        Self::of(head, head.wrapped_keys()?.swap_remove(0), &head.encryption_context()?)
    }

    /// As [`Self::start`], with this one of the value's wrapped keys.
    fn of(head: &Head<'_>, wrapped: WrappedKey, context: &EncryptionContext) -> Result<Self, Error> {
        check_allowed(&wrapped.key_id)?;
        named_keys::check(&wrapped.key_id, Use::Decrypt)?;
        let asked = with_session(Session::asking);
        let ttl = settings::cache_ttl();
        let pending = start(unwrap_request(wrapped.clone(), context.clone(), head.commitment(), ttl))?;
        Ok(Self { wrapped, asked, pending })
    }

    /// Keeps the data key, whose request has been answered.
    ///
    /// # Errors
    /// Why it could not be unwrapped.
    pub fn finish(self, head: &Head<'_>, reply: Result<Reply, Error>) -> Result<Rc<CachedKey>, Error> {
        let OpeningGrant { dek, key_id, consent } =
            opening_grant(heed_reply(self.pending.context(), reply)).map_err(one_message)?;
        check_allowed(&key_id)?;
        // It keeps the key id of the value: where a replica of a multi-Region key has helped out, the key's own region is
        // asked again next time.
        keep(DataKey::unwrapped(dek, self.wrapped, head, &message_keys())?, consent, self.asked)
    }

    /// Waits for the answer, and keeps the data key.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub fn wait(mut self, head: &Head<'_>) -> Result<Rc<CachedKey>, Error> {
        let reply = ask::wait(&mut self.pending);
        self.finish(head, reply)
    }
}

/// One error for everything cryptographic.
pub fn one_message(error: Error) -> Error {
    match error {
        Error::Kms(KmsError { kind: KmsErrorKind::WrappedKeyRejected, .. }) => ValueError::AuthenticationFailed.into(),
        error => error,
    }
}
