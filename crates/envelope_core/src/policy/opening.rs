//! The data key that opens a value.

use std::rc::{Rc, Weak};

use super::consent::{another_reply, is_fresh};
use super::{Ask, Asked, Policy, PolicyError, Step, Surroundings, Then};
use crate::cache::CachedKey;
use crate::context::EncryptionContext;
use crate::error::ValueError;
use crate::format::{Head, HeadError};
use crate::keys::WrappedKey;
use crate::request::OpeningGrant;
use crate::request::{KmsError, KmsErrorKind, Operation, Reply, Request};
use crate::value::{DataKey, DerivedKeys};

/// A value whose data key is being unwrapped: by the first of its wrapped keys that can be.
pub(super) struct Unwrapping {
    head: Box<[u8]>,
    value_bytes: usize,
    context: EncryptionContext,
    /// Those that were not tried.
    rest: std::vec::IntoIter<WrappedKey>,
    first_error: Option<PolicyError>,
}

impl<P> Policy<P> {
    /// What [`Self::open`] has [ready](Step::Ready), if there is nothing to do besides: mostly so, and soon known.
    #[inline]
    pub fn open_quickly(&mut self, head: &Head<'_>, world: &impl Surroundings) -> Option<Rc<CachedKey>> {
        self.heed(world);
        let cached = self.opening.find(head.dek_identity())?;
        let used = use_now(cached, world)?;
        self.opening.count_hit();
        Some(used)
    }

    /// As [`Self::open_quickly`], of a data key that was had before, unless the cache has dropped it since.
    #[inline]
    pub fn open_again(&mut self, known: &Weak<CachedKey>, world: &impl Surroundings) -> Option<Rc<CachedKey>> {
        // What it drops, as of a flush, cannot be upgraded any more.
        self.heed(world);
        let used = use_now(known.upgrade()?, world)?;
        self.opening.count_hit();
        Some(used)
    }

    pub(super) fn start_opening(&mut self, head: &Head<'_>, world: &impl Surroundings) -> Result<Step<P>, PolicyError> {
        if let Some(cached) = self.open_quickly(head, world) {
            return Ok(Step::Ready(cached));
        }
        match self.opening.find(head.dek_identity()) {
            Some(cached) => {
                self.check_cached(&cached, world)?;
                self.opening.count_hit();
                cached.count_use();
                Ok(self.obtain_consent(cached, Then::ConsentToOpen, world))
            }
            None => {
                let before = self.opening.counts().evicted_needed;
                self.opening.count_miss(head.dek_identity());
                self.note_evictions(before, self.opening.counts().evicted_needed);
                self.unwrap(head, world)
            }
        }
    }

    /// Has the data key of a value unwrapped, whether or not the session has it.
    ///
    /// # Errors
    /// Why it may not be asked for.
    #[inline(never)]
    pub fn unwrap(&mut self, head: &Head<'_>, world: &impl Surroundings) -> Result<Step<P>, PolicyError> {
        let unwrapping = Unwrapping {
            head: head.as_bytes().into(),
            value_bytes: head.value_bytes(),
            context: head.encryption_context()?,
            rest: head.wrapped_keys()?.into_iter(),
            first_error: None,
        };
        self.unwrap_next(unwrapping, world)
    }

    /// As [`Self::unwrap`], for a value that the statement is about to read.
    ///
    /// # Errors
    /// Why it may not be asked for.
    pub fn unwrap_ahead(&mut self, head: &Head<'_>, world: &impl Surroundings) -> Result<Step<P>, PolicyError> {
        let mut step = self.unwrap(head, world)?;
        if let Step::Ask(Ask { request: Request::OpeningKey { terms, .. }, .. }) = &mut step {
            terms.is_ahead = true;
        }
        Ok(step)
    }

    /// Whether the session has a data key, and has opened a value with it since it was unwrapped.
    pub fn was_used(&mut self, identity: &[u8]) -> bool {
        self.opening.peek(identity).is_some_and(|cached| cached.uses() > 1)
    }

    /// Asks about the next wrapped key that may be asked about.
    fn unwrap_next(&mut self, mut unwrapping: Unwrapping, world: &impl Surroundings) -> Result<Step<P>, PolicyError> {
        while let Some(wrapped) = unwrapping.rest.next() {
            let commitment = Some(unwrapping.head()?.commitment());
            let refused = self.refused_wrapped_keys.find(&wrapped, &unwrapping.context, commitment, world.now());
            let may_ask = match refused {
                Some(error) => Err(one_message(error.into())),
                None => self.check_allowed(&wrapped.key_id, world),
            };
            match may_ask {
                Ok(()) => {
                    let asked = self.asked(world);
                    let request = Request::OpeningKey {
                        commitment,
                        context: unwrapping.context.clone(),
                        terms: self.terms(&wrapped.key_id, world),
                        wrapped,
                    };
                    return Ok(self.ask(request, asked, Then::Open(unwrapping), world));
                }
                Err(error) => unwrapping.failed(error),
            }
        }
        Err(unwrapping.first_error.unwrap_or(ValueError::Malformed("wrapped keys").into()))
    }

    pub(super) fn skip_wrapped(
        &mut self,
        unwrapping: Unwrapping,
        world: &impl Surroundings,
    ) -> Result<Ask, Option<PolicyError>> {
        if unwrapping.rest.len() == 0 {
            return Err(unwrapping.first_error);
        }
        match self.unwrap_next(unwrapping, world) {
            Ok(Step::Ask(ask)) => Ok(ask),
            Ok(Step::Ready(_) | Step::Await(..)) => Err(None),
            Err(error) => Err(Some(error)),
        }
    }

    pub(super) fn unwrapped(
        &mut self,
        mut unwrapping: Unwrapping,
        asked: Asked,
        request: Request,
        reply: Result<Reply, PolicyError>,
        world: &impl Surroundings,
    ) -> Result<Step<P>, PolicyError> {
        let Request::OpeningKey { wrapped, context, .. } = request else {
            unreachable!("an Unwrapping asks for nothing else")
        };
        if let Err(PolicyError::Kms(error)) = &reply {
            self.refused_wrapped_keys.refused(&wrapped, &context, error, world.now());
        }
        let kept = reply.and_then(|reply| match reply {
            Reply::Opening(OpeningGrant { dek, key_id, consent }) => {
                self.check_allowed(&key_id, world)?;
                // It keeps the key id of the value: where a replica of a multi-Region key has helped out, the key's own region
                // is asked again next time.
                let head = unwrapping.head()?;
                let derived = DerivedKeys::of(dek, &context, &self.message_keys);
                let opened = *derived.commitment();
                if opened != head.commitment() {
                    self.refused_wrapped_keys.opens_to(&wrapped, &context, opened, consent.given_at(asked.at));
                }
                let data_key = DataKey::unwrapped(derived, wrapped, context, &head)?;
                self.keep(data_key, consent, asked, world)
            }
            _ => Err(another_reply(Operation::Decrypt, &wrapped.key_id).into()),
        });
        match kept {
            Ok((cached, _)) => {
                cached.count_use();
                Ok(Step::Ready(cached))
            }
            // It may make no more, whatever the other wrapped keys are.
            Err(error @ PolicyError::TooManyCalls(_)) => Err(unwrapping.first_error.unwrap_or(error)),
            Err(error) => {
                unwrapping.failed(one_message(error));
                self.unwrap_next(unwrapping, world)
            }
        }
    }
}

impl Unwrapping {
    fn head(&self) -> Result<Head<'_>, ValueError> {
        Head::parse(&self.head, self.value_bytes).map_err(|error| match error {
            HeadError::Invalid(error) => error,
            HeadError::NeedBytes(_) => ValueError::Truncated,
        })
    }

    fn failed(&mut self, error: PolicyError) {
        self.first_error.get_or_insert(error);
    }
}

/// A data key, if it may be used and there is nothing to do besides.
#[inline]
fn use_now(cached: Rc<CachedKey>, world: &impl Surroundings) -> Option<Rc<CachedKey>> {
    if !cached.is_allowed_by(world.allowed_keys_generation()) || !is_fresh(&cached, world.coarse_now(), world) {
        return None;
    }
    cached.count_use();
    Some(cached)
}

/// One error for everything cryptographic.
pub(super) fn one_message(error: PolicyError) -> PolicyError {
    match error {
        PolicyError::Kms(KmsError { kind: KmsErrorKind::WrappedKeyRejected, .. }) => {
            ValueError::AuthenticationFailed.into()
        }
        error => error,
    }
}
