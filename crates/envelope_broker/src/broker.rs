//! One holder of data keys for all sessions of a server: answers them from memory, or asks the providers.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::time::{Duration, Instant};

use envelope_core::cache::RefusedWrappedKeys;
use envelope_core::cache::bounded::CacheCounts;
use envelope_core::context::EncryptionContext;
use envelope_core::keys::{Commitment, KeyId};
use envelope_core::request::{
    Calls, ConsentAge, KmsError, KmsErrorKind, OpeningGrant, Operation, Reply, Request, SealingGrant, SealingLimits,
    Terms,
};
use envelope_kms::limiter::{on_behalf_of, on_behalf_of_current};
use envelope_kms::{GeneratedKey, KeyProvider, Statistics, UnwrappedKey};
use futures_util::FutureExt;

use crate::begun::Begun;
use crate::flight::{Flight, Flights};
use crate::look_ahead::LookAhead;
use crate::store::{self, Current, DekName, Held, Place, Store};

/// From this part of its time on, in 256ths, the provider is asked again in the background; later by up to the spread, for each data
/// key, so that brokers that began together do not go on in step.
const REFRESH_FROM: u32 = 218;
const REFRESH_SPREAD: u32 = 18;

/// Wrapped keys that are not asked about again for a while: 10 MB.
const MAX_REFUSED_WRAPPED_KEYS: usize = 32_768;

/// A data key that was made, and its plaintext.
type Generated = (Rc<Current>, Rc<Held>);

/// The broker. It runs on one thread, in a `LocalSet`.
pub struct Broker<P> {
    providers: RefCell<Rc<P>>,
    store: RefCell<Store>,
    unwrapping: Flights<DekName, Rc<Held>>,
    generating: Flights<Place, Generated>,
    look_ahead: RefCell<LookAhead>,
    refused: RefCell<RefusedWrappedKeys>,
    unwrapped_ahead: Cell<u64>,
    /// Changes with each flush: what was asked for before is not kept.
    epoch: Cell<u64>,
    /// Data keys that were asked for before do not become current.
    replaced: Cell<Instant>,
    statistics: Statistics,
    clock: fn() -> Instant,
    /// Tells this broker from those of other servers.
    spread: u8,
}

impl<P: KeyProvider + 'static> Broker<P> {
    /// A broker without data keys. Counts in `statistics` what it serves stale.
    #[must_use]
    pub fn new(providers: P, statistics: Statistics, memory: usize) -> Rc<Self> {
        Self::with_clock(providers, statistics, memory, Instant::now, RandomState::new().hash_one(()))
    }

    /// As [`Self::new`], by this clock. `seed` says how early it refreshes its data keys, and what goes when its memory is full.
    #[must_use]
    pub fn with_clock(
        providers: P,
        statistics: Statistics,
        memory: usize,
        clock: fn() -> Instant,
        seed: u64,
    ) -> Rc<Self> {
        Rc::new(Self {
            providers: RefCell::new(Rc::new(providers)),
            store: RefCell::new(Store::new(memory, seed)),
            unwrapping: Flights::new(),
            generating: Flights::new(),
            look_ahead: RefCell::default(),
            refused: RefCell::new(RefusedWrappedKeys::new(MAX_REFUSED_WRAPPED_KEYS)),
            unwrapped_ahead: Cell::new(0),
            epoch: Cell::new(0),
            replaced: Cell::new(clock()),
            statistics,
            clock,
            spread: seed as u8,
        })
    }

    /// From now on other providers are asked.
    pub fn set_providers(&self, providers: P) {
        *self.providers.borrow_mut() = Rc::new(providers);
        self.refused.borrow_mut().clear();
        self.unwrapping.forget();
        self.generating.forget();
    }

    /// Seals new values under a key with new data keys from now on, in all encryption contexts.
    pub fn retire(&self, key_id: &KeyId) {
        self.replaced.set(self.now());
        self.generating.forget();
        self.store.borrow_mut().retire(key_id);
    }

    /// Seals all new values with new data keys from now on.
    pub fn retire_all(&self) {
        self.replaced.set(self.now());
        self.generating.forget();
        self.store.borrow_mut().retire_all();
    }

    /// Drops all data keys; what is being asked for now is not kept, and nobody joins it.
    pub fn flush(&self) {
        self.epoch.set(self.epoch.get() + 1);
        self.refused.borrow_mut().clear();
        self.unwrapping.forget();
        self.generating.forget();
        self.store.borrow_mut().clear();
    }

    /// How many data keys were asked for ahead of a scan.
    #[must_use]
    pub fn unwrapped_ahead(&self) -> u64 {
        self.unwrapped_ahead.get()
    }

    /// Wipes the plaintext of data keys that the provider handed out longer ago than `useful_for`, and forgets current ones
    /// that are older than `max_age`.
    pub fn prune(&self, useful_for: Duration, max_age: Duration) {
        self.store.borrow_mut().prune(useful_for, max_age, self.now());
    }

    /// Who is asked.
    pub fn providers(&self) -> Rc<P> {
        Rc::clone(&self.providers.borrow())
    }

    /// How many data keys there are in plaintext, and how many pairs of a key and an encryption context have a current one.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        self.store.borrow().sizes()
    }

    /// Keeps data keys in so many bytes from now on.
    pub fn resize(&self, memory: usize) {
        self.store.borrow_mut().resize(memory);
    }

    /// What has happened to the data keys for opening values, and to the current ones.
    #[must_use]
    pub fn cache_counts(&self) -> [CacheCounts; 2] {
        self.store.borrow().counts()
    }

    /// About the memory that the data keys take.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.store.borrow().used_bytes()
    }

    /// Answers a session, which is known by its process id. Dropping the future gives the request up; a call that others wait
    /// for goes on. The reply says how many calls were begun because of the request, those in the background included.
    ///
    /// # Errors
    /// What the provider said.
    pub async fn answer(self: &Rc<Self>, session: i32, request: Request) -> Result<Reply, KmsError> {
        on_behalf_of(session, self.answer_to(session, request)).await
    }

    async fn answer_to(self: &Rc<Self>, session: i32, request: Request) -> Result<Reply, KmsError> {
        let (asked, begun) = (self.now(), Begun::default());
        let mut reply = match request {
            Request::SealingKey { key_id, context, terms, limits } => {
                self.sealing_key(Place { key_id, context }, &terms, &limits, asked, &begun).await.map(Reply::Sealing)
            }
            Request::ReplaceDek { key_id, context } => {
                self.replace_dek(Place { key_id, context }, asked, &begun).await.map(Reply::Sealing)
            }
            Request::OpeningKey { wrapped, context, commitment, terms } => {
                let name = DekName { wrapped, context };
                let held = self.store.borrow_mut().held(&name);
                let is_fresh = held.as_ref().is_some_and(|held| held.is_fresh(asked, &terms));
                // What is in memory is waited for by nobody; it is a step of a scan if it was asked for ahead of that.
                let is_step = !is_fresh || self.look_ahead.borrow().is_ahead_of(session);
                if is_step {
                    self.unwrap_ahead(session, &name, &terms, &begun);
                }
                let grant = self.opening_key(&name, held, commitment, &terms, asked, &begun).await;
                // What does not open is on nobody's way.
                if is_step && grant.is_ok() {
                    self.look_ahead.borrow_mut().opened(session, &name);
                }
                let is_call_ahead = terms.is_ahead && grant.as_ref().is_ok_and(|grant| grant.consent.took_call);
                self.unwrapped_ahead.set(self.unwrapped_ahead.get() + u64::from(is_call_ahead));
                grant.map(Reply::Opening)
            }
            Request::Rewrap { wrapped, context, to } => {
                let providers = self.providers();
                begun.own(providers.rewrap_key(&wrapped, &context, &to).boxed_local()).await.map(Reply::Rewrapped)
            }
        };
        match &mut reply {
            Ok(reply) => reply.count_calls(begun.calls()),
            Err(error) => error.calls = begun.calls(),
        }
        reply
    }

    /// Asks for what a scan is about to ask for.
    fn unwrap_ahead(self: &Rc<Self>, session: i32, name: &DekName, terms: &Terms, begun: &Begun) {
        if terms.calls != Calls::Ahead {
            return;
        }
        let ahead = self.look_ahead.borrow_mut().ahead(session, name);
        for (before, name) in ahead {
            if !self.is_fresh(&name, terms)
                && !self.unwrapping.is_under_way(&name)
                && self.refusal(&name, None).is_none()
            {
                self.unwrapped_ahead.set(self.unwrapped_ahead.get() + 1);
                let (broker, unwrapping) = (Rc::clone(self), self.unwrap(&name, begun));
                tokio::task::spawn_local(async move {
                    if unwrapping.await.is_err_and(|error| error.kind.is_refusal()) {
                        broker.look_ahead.borrow_mut().failed(&before, &name);
                    }
                });
            }
        }
    }

    /// Whether a data key is there that need not be asked for.
    fn is_fresh(&self, name: &DekName, terms: &Terms) -> bool {
        self.store.borrow_mut().held(name).is_some_and(|held| held.is_fresh(self.now(), terms))
    }

    /// Why a wrapped key need not be asked about, if so.
    fn refusal(&self, name: &DekName, commitment: Option<Commitment>) -> Option<KmsError> {
        self.refused.borrow_mut().find(&name.wrapped, &name.context, commitment, self.now())
    }

    async fn opening_key(
        self: &Rc<Self>,
        name: &DekName,
        held: Option<Rc<Held>>,
        commitment: Option<Commitment>,
        terms: &Terms,
        asked: Instant,
        begun: &Begun,
    ) -> Result<OpeningGrant, KmsError> {
        let held = held.filter(|held| held.may_open());
        let (held, consent) = self.usable(name, held, commitment, terms, asked, begun).await?;
        Ok(OpeningGrant { dek: held.dek.copy(), key_id: held.key_id.clone(), consent })
    }

    async fn sealing_key(
        self: &Rc<Self>,
        place: Place,
        terms: &Terms,
        limits: &SealingLimits,
        asked: Instant,
        begun: &Begun,
    ) -> Result<SealingGrant, KmsError> {
        let mut took_call = false;
        loop {
            let current = self.store.borrow_mut().current(&place);
            if let Some(current) = &current
                && let Some(lease) = current.lease(limits, self.now())
            {
                let held = self.store.borrow_mut().held(&current.name);
                match self.usable(&current.name, held, Some(current.commitment), terms, asked, begun).await {
                    Ok((held, mut consent)) => {
                        self.make_next_in_time(&place, current, terms, limits, begun);
                        consent.took_call |= took_call;
                        return Ok(current.grant(&held, lease, asked, consent));
                    }
                    // Not this data key any more. A new one may be had: where only kms:GenerateDataKey is allowed, or when
                    // the alias points to another key by now.
                    Err(error) if error.kind.is_refusal() => self.store.borrow_mut().remove_current(&place, current),
                    Err(error) => return Err(error),
                }
            }
            took_call = true;
            if !begun.may_begin(terms) && !self.generating.is_under_way(&place) {
                return Err(KmsError::no_call_left(Operation::GenerateDataKey, &place.key_id.to_string()));
            }
            self.store.borrow_mut().count_missing_current(&place);
            match begun.wait(|| self.generate(&place, begun)).await {
                Ok((current, held)) => {
                    // The provider consents just now, even if its answer took longer than a data key is good for.
                    if let Some(lease) = current.lease_of_new(limits) {
                        self.make_next_in_time(&place, &current, terms, limits, begun);
                        return Ok(current.grant(&held, lease, asked, held.consent(asked, false, true)));
                    }
                    // Those who waited with us have used it up: once more.
                }
                Err(error) => {
                    let Some(current) = current.filter(|_| error.kind.is_outage()) else { return Err(error) };
                    let took_call = error.was_made();
                    let held = self.store.borrow_mut().held(&current.name);
                    // One that the provider has unwrapped wrongly since would seal values that never open.
                    let is_right = |held: &Rc<Held>| held.dek.commitment() == current.commitment;
                    let held =
                        held.filter(|held| is_right(held) && held.age(self.now()) < terms.stale_for).ok_or(error)?;
                    self.statistics.served_stale(Operation::GenerateDataKey, &place.key_id.to_string());
                    // For one value: the provider may be back for the next.
                    return Ok(current.grant(&held, store::ONE_USE, asked, held.consent(asked, true, took_call)));
                }
            }
        }
    }

    fn make_next_in_time(
        self: &Rc<Self>,
        place: &Place,
        current: &Current,
        terms: &Terms,
        limits: &SealingLimits,
        begun: &Begun,
    ) {
        if terms.calls == Calls::Ahead && current.is_due(limits, self.now()) {
            self.in_background(self.generate(place, begun));
        }
    }

    async fn replace_dek(
        self: &Rc<Self>,
        place: Place,
        asked: Instant,
        begun: &Begun,
    ) -> Result<SealingGrant, KmsError> {
        // Certainly made after now: a call that is under way is not joined, and what it brings is older than this one.
        let (current, held) = begun.own(self.generate_anew(place).boxed_local()).await?;
        self.generating.forget();
        // For no value: whoever seals with it asks for a lease.
        Ok(current.grant(&held, store::NO_USE, asked, held.consent(asked, false, true)))
    }

    /// A data key, which may be held, if its provider consents to its use, or cannot be asked; and if it is the one that is committed
    /// to. Else values would not open, or worse, be sealed so that they never do.
    async fn usable(
        self: &Rc<Self>,
        name: &DekName,
        held: Option<Rc<Held>>,
        commitment: Option<Commitment>,
        terms: &Terms,
        asked: Instant,
        begun: &Begun,
    ) -> Result<(Rc<Held>, ConsentAge), KmsError> {
        let is_wanted = |held: &Held| commitment.is_none_or(|commitment| commitment == held.dek.commitment());
        if let Some(error) = self.refusal(name, commitment) {
            return Err(error);
        }
        let (held, consent) = self.consented(name, held, terms, asked, begun).await?;
        if is_wanted(&held) {
            return Ok((held, consent));
        }
        // What the provider has answered before this request may be wrong, since nobody may have checked it: then once more. It
        // stays until the next answer takes its place, since it is the value that may be wrong, too.
        let opens_to = |held: &Held| {
            let DekName { wrapped, context } = name;
            self.refused.borrow_mut().opens_to(wrapped, context, held.dek.commitment(), held.asked());
        };
        opens_to(&held);
        if held.was_asked_for_before(asked) {
            if !begun.may_begin(terms) {
                return Err(KmsError::no_call_left(Operation::Decrypt, &name.wrapped.key_id));
            }
            let held = begun.own(self.unwrap_anew(name.clone()).boxed_local()).await?;
            opens_to(&held);
            if is_wanted(&held) {
                let consent = held.consent(asked, false, true);
                return Ok((held, consent));
            }
        }
        Err(KmsError::new(KmsErrorKind::WrappedKeyRejected, Operation::Decrypt, &name.wrapped.key_id))
    }

    /// A data key, which may be held, if its provider consents to its use, or cannot be asked.
    async fn consented(
        self: &Rc<Self>,
        name: &DekName,
        held: Option<Rc<Held>>,
        terms: &Terms,
        asked: Instant,
        begun: &Begun,
    ) -> Result<(Rc<Held>, ConsentAge), KmsError> {
        if let Some(held) = held.as_ref().filter(|held| held.is_fresh(self.now(), terms)) {
            let refresh_from =
                REFRESH_FROM + u32::from(held.dek.commitment().0[0] ^ self.spread) * REFRESH_SPREAD / 256;
            let is_due = held.age(self.now()) >= terms.fresh_for / 256 * refresh_from;
            if is_due && terms.calls == Calls::Ahead && held.may_refresh(self.now()) {
                self.in_background(self.unwrap(name, begun));
            }
            self.store.borrow_mut().count_hit();
            return Ok((Rc::clone(held), held.consent(asked, false, false)));
        }
        if !begun.may_begin(terms) && !self.unwrapping.is_under_way(name) {
            return Err(KmsError::no_call_left(Operation::Decrypt, &name.wrapped.key_id));
        }
        self.store.borrow_mut().count_miss(name);
        match begun.wait(|| self.unwrap(name, begun)).await {
            Ok(held) => Ok((Rc::clone(&held), held.consent(asked, false, true))),
            Err(error) => {
                let held = held.filter(|held| error.kind.is_outage() && held.age(self.now()) < terms.stale_for);
                let took_call = error.was_made();
                let held = held.ok_or(error)?;
                self.statistics.served_stale(Operation::Decrypt, &name.wrapped.key_id);
                Ok((Rc::clone(&held), held.consent(asked, true, took_call)))
            }
        }
    }

    /// Whoever needs the result asks again, and is told.
    fn in_background<T: 'static>(&self, call: impl Future<Output = Result<T, KmsError>> + 'static) {
        tokio::task::spawn_local(async move { drop(call.await) });
    }

    /// Joins the call that unwraps a data key, or begins it.
    fn unwrap(self: &Rc<Self>, name: &DekName, begun: &Begun) -> Flight<Rc<Held>> {
        let broker = Rc::clone(self);
        self.unwrapping.join(name, |name| {
            begun.one();
            on_behalf_of_current(async move { broker.unwrap_anew(name).await })
        })
    }

    async fn unwrap_anew(self: &Rc<Self>, name: DekName) -> Result<Rc<Held>, KmsError> {
        let (asked, epoch, providers) = (self.now(), self.epoch.get(), self.providers());
        match providers.unwrap_key(&name.wrapped, &name.context).await {
            Ok(UnwrappedKey { dek, key_id }) => {
                let held = Rc::new(Held::new(dek, key_id, asked));
                if epoch == self.epoch.get() {
                    self.store.borrow_mut().hold(&Rc::new(name), &held);
                }
                Ok(held)
            }
            Err(error) => {
                if error.kind.is_refusal() {
                    self.store.borrow_mut().release(&name);
                }
                self.refused.borrow_mut().refused(&name.wrapped, &name.context, &error, self.now());
                self.heed_refusal(&error, &name.context);
                Err(error)
            }
        }
    }

    /// Joins the call that makes a data key, or begins it.
    fn generate(self: &Rc<Self>, place: &Place, begun: &Begun) -> Flight<Generated> {
        let broker = Rc::clone(self);
        self.generating.join(place, |place| {
            begun.one();
            on_behalf_of_current(async move { broker.generate_anew(place).await })
        })
    }

    async fn generate_anew(self: &Rc<Self>, place: Place) -> Result<Generated, KmsError> {
        let (asked, epoch, providers) = (self.now(), self.epoch.get(), self.providers());
        match providers.generate_data_key(&place.key_id, &place.context).await {
            Ok(GeneratedKey { wrapped, .. }) if wrapped.wrapped_dek.is_empty() => {
                let reason = "it has no wrapped data key";
                Err(KmsError::unexpected(reason, Operation::GenerateDataKey, &wrapped.key_id))
            }
            Ok(GeneratedKey { dek, wrapped }) => {
                let held = Rc::new(Held::new(dek, wrapped.key_id.clone(), asked));
                let current = Rc::new(Current::new(
                    Rc::new(DekName { wrapped, context: place.context.clone() }),
                    held.dek.commitment(),
                    asked,
                ));
                if epoch == self.epoch.get() {
                    let mut store = self.store.borrow_mut();
                    store.hold(&current.name, &held);
                    if asked >= self.replaced.get() {
                        store.make_current(&place, &current);
                    }
                }
                Ok((current, held))
            }
            Err(error) => {
                self.heed_refusal(&error, &place.context);
                if error.is_refusal_of_key() {
                    self.store.borrow_mut().doubt_current(&place);
                }
                Err(error)
            }
        }
    }

    /// Acts on an error that came with an encryption context.
    fn heed_refusal(&self, error: &KmsError, context: &EncryptionContext) {
        if error.is_refusal_of_key() {
            self.store.borrow_mut().remove_refused(error, context);
        }
    }

    fn now(&self) -> Instant {
        (self.clock)()
    }
}

#[cfg(test)]
mod tests;
