//! Requests about data keys, and what their answers mean for the statement and the cache.

use std::time::Duration;

use envelope_core::cache::Limits;
use envelope_core::context::EncryptionContext;
use envelope_core::keys::{Commitment, WrappedKey};
use envelope_core::request::{Calls, KmsError, KmsErrorKind, OpeningGrant, Reply, Request, Terms};

use super::consent::heed_refusal;
use crate::ask;
use crate::ask::{journal, shared};
use crate::error::Error;
use crate::pg::settings;
use crate::session::{release, statement};

/// Asks the broker or a provider, and waits for the answer.
///
/// # Errors
/// Why it was not done.
pub fn ask(request: Request) -> Result<Reply, Error> {
    finish(start(request)?)
}

/// Waits for a request.
///
/// # Errors
/// As [`ask`].
pub fn finish(mut pending: ask::Pending) -> Result<Reply, Error> {
    let reply = ask::wait(&mut pending);
    heed_reply(pending.context(), reply)
}

/// Starts a request that the statement waits for.
///
/// # Errors
/// [`Error::TooManyKmsCalls`], [`Error::Bridge`].
pub fn start(request: Request) -> Result<ask::Pending, Error> {
    // A request for a data key says by itself which calls it may take: the broker may have the answer.
    if request.terms().is_none() && statement::kms_calls_allowed() == Calls::None {
        return Err(statement::too_many_kms_calls());
    }
    release::compare();
    statement::count_kms_call();
    if let Some(problem) = shared::problem() {
        journal::shared_problem(&problem);
    }
    ask::start(request)
}

pub(super) fn heed_reply(context: &EncryptionContext, reply: Result<Reply, Error>) -> Result<Reply, Error> {
    journal::write_events();
    match &reply {
        Ok(reply) if !reply.took_call() => statement::uncount_kms_call(),
        Ok(_) => {}
        Err(Error::Kms(KmsError { kind: KmsErrorKind::NoCallLeft, .. })) => {
            statement::uncount_kms_call();
            return Err(statement::too_many_kms_calls());
        }
        Err(Error::Kms(error)) => {
            if error.breaker_was_open {
                statement::uncount_kms_call();
            }
            heed_refusal(error, context);
        }
        Err(_) => {}
    }
    reply
}

/// The reply to a request for the plaintext of a data key.
pub fn opening_grant(reply: Result<Reply, Error>) -> Result<OpeningGrant, Error> {
    match reply? {
        Reply::Opening(grant) => Ok(grant),
        Reply::Sealing(_) | Reply::Rewrapped(_) => unreachable!("the reply is to this request"),
    }
}

/// How old a provider's consent may be that another session has obtained.
pub(super) fn terms(limits: &Limits, fresh_for: Duration) -> Terms {
    let stale_for = limits.ttl.saturating_add(limits.stale_if_unreachable);
    Terms { fresh_for, stale_for, calls: statement::kms_calls_allowed() }
}

/// The request for the plaintext of a data key.
pub(super) fn unwrap_request(
    wrapped: WrappedKey,
    context: EncryptionContext,
    commitment: Commitment,
    fresh_for: Duration,
) -> Request {
    Request::OpeningKey { wrapped, context, commitment: Some(commitment), terms: terms(&settings::limits(), fresh_for) }
}

/// The request for the plaintext of a data key that is in use: what another session has refreshed lately will do, and what
/// is stale will not.
pub fn refresh_request(wrapped: WrappedKey, context: EncryptionContext, commitment: Commitment) -> Request {
    let terms = Terms { fresh_for: settings::cache_ttl() / 2, stale_for: Duration::ZERO, calls: Calls::Needed };
    Request::OpeningKey { wrapped, context, commitment: Some(commitment), terms }
}
