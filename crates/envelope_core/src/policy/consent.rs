//! Whether the provider of a cached data key consents to its use, and what an answer about it means.

use std::rc::Rc;
use std::time::Instant;

use super::note::Note;
use super::{Ask, Asked, Policy, PolicyError, Step, Surroundings, Then, failed_at};
use crate::cache::{CachedKey, Consent};
use crate::request::{KmsError, KmsErrorKind, Operation, Reply, Request};

impl<P> Policy<P> {
    /// The data key, if its provider consents to its use or is known to be out of reach; else it is asked.
    pub(super) fn obtain_consent(
        &mut self,
        cached: Rc<CachedKey>,
        then: impl FnOnce(Rc<CachedKey>) -> Then,
        world: &impl Surroundings,
    ) -> Step<P> {
        // By the precise clock: nothing is served past its bound, be it by a tick.
        match cached.consent(world.now(), &world.limits()) {
            Consent::Fresh => {}
            Consent::RefreshDue => self.refresh(&cached, world),
            consent @ (Consent::Stale | Consent::StaleRefreshDue) => {
                if consent == Consent::StaleRefreshDue {
                    self.refresh(&cached, world);
                }
                self.notes.push(Note::ServedStale { decided: None, key_id: cached.data_key().key_id().to_owned() });
            }
            Consent::Expired => {
                if let Some((request, asked, pending)) = self.take_refresh(&cached) {
                    return Step::Await(
                        pending,
                        Ask { request, asked, waiting_since: world.now(), then: then(cached) },
                    );
                }
                let asked = self.asked(world);
                let data_key = cached.data_key();
                let request = Request::OpeningKey {
                    wrapped: data_key.wrapped(),
                    context: data_key.context().clone(),
                    commitment: Some(*data_key.commitment()),
                    terms: self.terms(data_key.key_id(), world),
                };
                return self.ask(request, asked, then(cached), world);
            }
        }
        Step::Ready(cached)
    }

    /// What a provider said about a cached data key was heeded, and it may be used: fresh, or stale.
    pub(super) fn consented(
        &mut self,
        cached: Rc<CachedKey>,
        world: &impl Surroundings,
    ) -> Result<Step<P>, PolicyError> {
        // The list may have changed meanwhile.
        self.check_cached(&cached, world)?;
        if !matches!(cached.consent(world.now(), &world.limits()), Consent::Fresh | Consent::RefreshDue) {
            self.served_stale(Operation::Decrypt, &cached);
        }
        Ok(Step::Ready(cached))
    }

    /// Acts on what a provider said about a cached data key: an error unless it may be used, fresh or stale.
    pub(super) fn settle(
        &mut self,
        cached: &CachedKey,
        asked: Asked,
        reply: Result<Reply, PolicyError>,
        world: &impl Surroundings,
    ) -> Result<(), PolicyError> {
        let failed = failed_at(asked, world);
        match reply {
            Ok(Reply::Opening(grant)) => {
                cached.confirmed(grant.consent.given_at(asked.at));
                if grant.consent.is_stale {
                    cached.out_of_reach(failed);
                }
                Ok(())
            }
            Ok(_) => {
                cached.refresh_failed(failed);
                Err(another_reply(Operation::Decrypt, cached.data_key().key_id()).into())
            }
            Err(PolicyError::Kms(error)) if error.kind.is_outage() => {
                cached.out_of_reach(failed);
                if cached.may_go_stale(world.now(), &world.limits()) { Ok(()) } else { Err(error.into()) }
            }
            Err(error) => {
                cached.refresh_failed(failed);
                if matches!(&error, PolicyError::Kms(KmsError { kind: KmsErrorKind::WrappedKeyRejected, .. })) {
                    self.forget(|data_key| data_key.identity() == cached.data_key().identity());
                }
                Err(error)
            }
        }
    }

    /// Notes what the session has decided to use past its time.
    pub(super) fn served_stale(&mut self, operation: Operation, cached: &CachedKey) {
        let key_id = cached.data_key().key_id().to_owned();
        self.notes.push(Note::ServedStale { decided: Some(operation), key_id });
    }
}

/// Whether the provider consents to the use of a data key, and need not be asked again yet.
#[inline]
pub(super) fn is_fresh(cached: &CachedKey, now: Instant, world: &impl Surroundings) -> bool {
    // Mostly so, and then nothing else is looked at.
    cached.is_young(now, world.ttl()) || cached.consent(now, &world.limits()) == Consent::Fresh
}

/// A reply that is not to the request.
pub(super) fn another_reply(operation: Operation, key_id: &str) -> KmsError {
    KmsError::unexpected("it is to another request", operation, key_id)
}
