//! Whether the provider of a cached data key still consents to its use, and what is done when it refuses or cannot be asked.

use std::rc::Rc;
use std::time::Instant;

use envelope_core::cache::{CachedKey, Consent};
use envelope_core::context::EncryptionContext;
use envelope_core::keys::is_same_key;
use envelope_core::request::{KmsError, KmsErrorKind, OpeningGrant, Operation};
use envelope_core::value::DataKey;

use super::asking::{ask, opening_grant, unwrap_request};
use super::{forget, with_session};
use crate::ask::{bridge, journal};
use crate::error::Error;
use crate::pg::settings;
use crate::session::refresh::{Answered, Refresh};

/// Makes sure that the provider of a cached data key consents to its use, or cannot be asked.
#[inline]
pub(super) fn obtain_consent(cached: &Rc<CachedKey>, now: Instant) -> Result<(), Error> {
    // Mostly so, and then nothing else is looked at.
    if cached.is_young(now, settings::cache_ttl()) { Ok(()) } else { obtain_consent_again(cached, now) }
}

#[inline(never)]
fn obtain_consent_again(cached: &Rc<CachedKey>, now: Instant) -> Result<(), Error> {
    let limits = settings::limits();
    match cached.consent(now, &limits) {
        Consent::Fresh => return Ok(()),
        Consent::RefreshDue => {
            start_refresh(cached);
            return Ok(());
        }
        Consent::StaleRefreshDue => start_refresh(cached),
        Consent::Stale => {}
        Consent::Expired => {
            let refresh = with_session(|session| session.refreshes.take(cached));
            match refresh {
                Some(refresh) => heed(refresh.wait())?,
                None => {
                    let (data_key, asked) = (cached.data_key(), Instant::now());
                    let (wrapped, context) = (data_key.wrapped().clone(), data_key.context().clone());
                    let request = unwrap_request(wrapped, context, *data_key.commitment(), limits.ttl);
                    settle(cached, asked, opening_grant(ask(request)))?;
                }
            }
            if matches!(cached.consent(Instant::now(), &limits), Consent::Fresh | Consent::RefreshDue) {
                return Ok(());
            }
            served_stale(Operation::Decrypt, cached);
            return Ok(());
        }
    }
    journal::served_stale(cached.data_key().key_id());
    Ok(())
}

/// Acts on the background refreshes that have been answered. Whoever needs a data key that was refused asks again, and is
/// told.
pub(super) fn settle_refreshes() {
    let mut refreshes = with_session(|session| session.refreshes.take_all());
    let answered: Vec<_> = std::iter::from_fn(|| refreshes.take_answered()).collect();
    with_session(|session| session.refreshes.put_back(refreshes));
    for answered in answered {
        // It serves on until its time is up, if it still may.
        let _ = heed(answered);
    }
}

fn start_refresh(cached: &Rc<CachedKey>) {
    if with_session(|session| session.refreshes.has_room())
        && let Some(refresh) = Refresh::start(cached)
    {
        with_session(|session| session.refreshes.add(refresh));
    }
}

/// Acts on what a refresh came to: an error unless the data key may be used.
fn heed(Answered { cached, asked, answer }: Answered) -> Result<(), Error> {
    if let Err(Error::Kms(error)) = &answer {
        heed_refusal(error, cached.data_key().context());
    }
    journal::write_events();
    settle(&cached, asked, answer)
}

/// Acts on what a provider said about a cached data key: an error unless it may be used, fresh or stale.
fn settle(cached: &CachedKey, asked: Instant, answer: Result<OpeningGrant, Error>) -> Result<(), Error> {
    // A session that was idle since may take up the answer much later than it came.
    let failed = Instant::now().min(asked + settings::kms().aws.timeout);
    match answer {
        Ok(OpeningGrant { consent, .. }) => {
            cached.confirmed(consent.given_at(asked));
            if consent.is_stale {
                cached.out_of_reach(failed);
            }
            Ok(())
        }
        Err(Error::Kms(error)) if error.kind.is_outage() => {
            cached.out_of_reach(failed);
            if cached.may_go_stale(Instant::now(), &settings::limits()) { Ok(()) } else { Err(error.into()) }
        }
        Err(error) => {
            cached.refresh_failed(failed);
            if matches!(&error, Error::Kms(KmsError { kind: KmsErrorKind::WrappedKeyRejected, .. })) {
                forget(|data_key| data_key.identity() == cached.data_key().identity());
            }
            Err(error)
        }
    }
}

/// Drops the data keys of a key that its provider refuses: at once, whatever the data key that was asked for; if access to it
/// is denied, those of the encryption context.
pub(super) fn heed_refusal(error: &KmsError, context: &EncryptionContext) {
    let is_refused = |data_key: &DataKey| {
        is_same_key(data_key.key_id(), &error.key_id) && (!error.is_denial() || data_key.context() == context)
    };
    if error.is_refusal_of_key() && forget(is_refused) > 0 {
        journal::refused(error);
    }
}

/// Counts what the session has decided to use past its time, and says so. The broker counts what it hands out.
pub(super) fn served_stale(operation: Operation, cached: &CachedKey) {
    if let Some(statistics) = bridge::statistics() {
        statistics.served_stale(operation, cached.data_key().key_id());
    }
    journal::served_stale(cached.data_key().key_id());
}
