//! The data key that seals a value.

use std::rc::Rc;

use super::consent::{another_reply, is_fresh};
use super::{Asked, Policy, PolicyError, Step, Surroundings, Then};
use crate::cache::{CachedKey, Consent, NewCurrent};
use crate::context::EncryptionContext;
use crate::keys::KeyId;
use crate::request::{KmsError, Operation, Reply, Request};
use crate::request::{SealingGrant, SealingLimits};
use crate::value::DataKey;

/// What has a current data key, and how much is to be sealed with it.
pub(super) struct Place {
    key_id: String,
    context: EncryptionContext,
    plaintext_bytes: usize,
}

impl Place {
    pub(super) fn new(key_id: &str, context: &EncryptionContext, plaintext_bytes: usize) -> Self {
        Self { key_id: key_id.to_owned(), context: context.clone(), plaintext_bytes }
    }

    /// The key, as the statement names it.
    pub(super) fn key_id(&self) -> &str {
        &self.key_id
    }
}

impl<P> Policy<P> {
    /// What [`Self::seal`] has [ready](Step::Ready), if there is nothing to do besides: mostly so, and soon known.
    #[inline]
    pub fn seal_quickly(
        &mut self,
        key_id: &str,
        context: &EncryptionContext,
        plaintext_bytes: usize,
        world: &impl Surroundings,
    ) -> Option<Rc<CachedKey>> {
        self.heed(world);
        let (now, limits) = (world.coarse_now(), world.limits());
        let (cached, allowed_by) = self.sealing.find(key_id, context, plaintext_bytes, now, &limits)?;
        if allowed_by != Some(world.allowed_keys_generation()) || !is_fresh(&cached, now, world) {
            return None;
        }
        self.sealing.count_last(plaintext_bytes);
        Some(cached)
    }

    pub(super) fn start_sealing(
        &mut self,
        key_id: &str,
        context: &EncryptionContext,
        plaintext_bytes: usize,
        world: &impl Surroundings,
    ) -> Result<Step<P>, PolicyError> {
        self.heed(world);
        let (now, limits) = (world.coarse_now(), world.limits());
        let place = || Place::new(key_id, context, plaintext_bytes);
        if let Some(cached) = self.seal_quickly(key_id, context, plaintext_bytes, world) {
            return Ok(Step::Ready(cached));
        }
        let Some((cached, allowed_by)) = self.sealing.find(key_id, context, plaintext_bytes, now, &limits) else {
            let before = self.sealing.counts().evicted_needed;
            self.sealing.count_miss(key_id, context);
            self.note_evictions(before, self.sealing.counts().evicted_needed);
            return self.generate(place(), world);
        };
        if allowed_by != Some(world.allowed_keys_generation()) {
            self.check_current(key_id, &cached, world)?;
        }
        self.sealing.count_last(plaintext_bytes);
        Ok(self.obtain_consent(cached, |cached| Then::ConsentToSeal(cached, place()), world))
    }

    /// Checks the key that a statement names and the one behind it, and keeps the verdict until the list changes.
    #[inline(never)]
    fn check_current(
        &mut self,
        key_id: &str,
        cached: &CachedKey,
        world: &impl Surroundings,
    ) -> Result<(), PolicyError> {
        self.check_allowed(key_id, world)?;
        self.check_allowed(cached.data_key().key_id(), world)?;
        self.sealing.allow_last(world.allowed_keys_generation());
        Ok(())
    }

    /// Asks for the current data key of all sessions, or without a broker has one made.
    #[inline(never)]
    pub(super) fn generate(&mut self, place: Place, world: &impl Surroundings) -> Result<Step<P>, PolicyError> {
        self.check_allowed(&place.key_id, world)?;
        let limits = world.limits();
        let asked = self.asked(world);
        let request = Request::SealingKey {
            key_id: KeyId::parse(&place.key_id)?,
            context: place.context.clone(),
            terms: self.terms(&place.key_id, world),
            limits: SealingLimits {
                max_age: limits.max_age,
                max_uses: limits.max_uses,
                max_bytes: limits.max_bytes,
                wanted_bytes: place.plaintext_bytes as u64,
            },
        };
        Ok(self.ask(request, asked, Then::Seal(place), world))
    }

    pub(super) fn generated(
        &mut self,
        place: Place,
        asked: Asked,
        reply: Result<Reply, PolicyError>,
        world: &impl Surroundings,
    ) -> Result<Step<P>, PolicyError> {
        let grant = match reply {
            Ok(Reply::Sealing(grant)) => grant,
            Ok(_) => return Err(another_reply(Operation::GenerateDataKey, &place.key_id).into()),
            // The one that was due to be replaced serves on, as an opening key would.
            Err(PolicyError::Kms(error)) if error.kind.is_outage() => {
                return self.seal_with_spent(&place, error, world);
            }
            Err(error) => return Err(error),
        };
        let SealingGrant { dek, wrapped, age, lease, consent } = grant;
        let key_of_answer = wrapped.key_id.clone();
        let unexpected = |reason| KmsError::unexpected(reason, Operation::GenerateDataKey, &key_of_answer);
        if wrapped.wrapped_dek.is_empty() {
            return Err(unexpected("it has no wrapped data key").into());
        }
        let data_key = DataKey::generated(dek, wrapped, &place.context, &self.message_keys)
            .ok_or_else(|| unexpected("the wrapped data key is too large"))?;
        self.check_allowed(&place.key_id, world)?;
        let (cached, is_kept) = self.keep(data_key, consent, asked, world)?;
        let made = asked.at.checked_sub(age).unwrap_or(asked.at);
        if is_kept && self.seen_epochs == asked.epochs {
            let new = NewCurrent {
                cached: Rc::clone(&cached),
                made,
                lease,
                plaintext_bytes: place.plaintext_bytes,
                allowed_by: Some(world.allowed_keys_generation()),
            };
            self.sealing.insert(&place.key_id, &place.context, new, world.now(), &world.limits());
        }
        cached.count_use();
        // That the key behind an alias has a shorter time of its own was not known when it was asked for.
        let is_from_memory = consent.given_at(asked.at) < asked.at && !consent.is_stale;
        if is_from_memory && cached.consent(world.now(), &world.limits()) == Consent::Expired {
            return Ok(self.obtain_consent(cached, |cached| Then::ConsentToSeal(cached, place), world));
        }
        Ok(Step::Ready(cached))
    }

    fn seal_with_spent(
        &mut self,
        place: &Place,
        error: KmsError,
        world: &impl Surroundings,
    ) -> Result<Step<P>, PolicyError> {
        self.heed(world);
        let spent = self.sealing.find_spent(&place.key_id, &place.context);
        let spent = spent.filter(|spent| spent.may_go_stale(world.now(), &world.limits())).ok_or(error)?;
        self.check_allowed(&place.key_id, world)?;
        self.check_allowed(spent.data_key().key_id(), world)?;
        spent.count_use();
        self.served_stale(Operation::GenerateDataKey, &spent);
        Ok(Step::Ready(spent))
    }
}
