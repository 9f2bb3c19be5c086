//! When a session may use a data key, and when it has to ask about it first: consent, refresh, staleness, refusal, flushes,
//! retirement and the budget of calls. A state machine without I/O, and without a clock of its own.
//!
//! ```text
//! seal, open -> Step::Ready(key)                                  use it now, for one value
//!            -> Step::Ask(ask)     -> answered(ask, reply) -> Step    ask, tell the answer, go on
//!            -> Step::Await(token, ask)                    -> Step    as Ask, but the request is under way already
//! ```
//!
//! The driver does the asking, and acts on what [`Policy::take_notes`] has. Data keys are wiped when the last user drops them.
//!
//! - [`Surroundings`]: what the session sees of the world
//! - `surroundings`: what the session is told, and [`PolicyError`]
//! - [`budget`]: how many calls a statement has made
//! - [`note`]: what the driver is to log, to count and to start
//! - [`refresh`], `background`: data keys whose provider is being asked in the background
//! - [`refusals`]: what was refused lately
//! - `sealing`, `opening`: the two questions, step by step
//! - `consent`: what an answer about a cached data key means

mod background;
pub mod budget;
mod consent;
pub mod note;
mod opening;
pub mod refresh;
pub mod refusals;
mod sealing;
mod surroundings;

use std::rc::Rc;
use std::time::Instant;

use crate::allowed_keys::AllowedKeys;
use crate::cache::bounded::CacheCounts;
use crate::cache::{CachedKey, Limits, OpeningKeys, RefusedWrappedKeys, SealingKeys};
use crate::cipher::message_keys::MessageKeys;
use crate::context::EncryptionContext;
use crate::format::Head;
use crate::keys::stack::wipe_stack;
use crate::keys::{Commitment, KeyId};
use crate::request::{ConsentAge, KmsError, KmsErrorKind, Reply, Request, Terms};
use crate::value::DataKey;
use budget::Budget;
use note::Note;
use refresh::Refreshes;
use refusals::Refusals;
pub use surroundings::{Asked, BLIND_TIME, Epochs, PolicyError, StatementId, Surroundings};

/// Wrapped keys that a session does not ask about again for a while.
const MAX_REFUSED_WRAPPED_KEYS: usize = 4_096;
/// Of so many evicted data keys that are needed again one is noted.
const NOTED_EVICTIONS: u64 = 1_024;

/// What comes next for a value.
pub enum Step<P> {
    /// The data key, for this value: its use is counted.
    Ready(Rc<CachedKey>),
    /// Ask, and tell [`Policy::answered`] what came of it.
    Ask(Ask),
    /// As [`Step::Ask`], but the request is under way already: it was started in the background.
    Await(P, Ask),
}

/// A question that is to be asked, and what its answer is for. Dropping it gives that up.
pub struct Ask {
    request: Request,
    asked: Asked,
    /// Since when a value waits for it: later than it was asked if that was in the background.
    waiting_since: Instant,
    then: Then,
}

/// What the answer is for.
enum Then {
    /// Consent to the use of a cached data key, to open a value with it.
    ConsentToOpen(Rc<CachedKey>),
    /// Consent to the use of a cached data key, to seal a value with it; else another one is made.
    ConsentToSeal(Rc<CachedKey>, sealing::Place),
    /// The current data key of a place.
    Seal(sealing::Place),
    /// The data key of a value.
    Open(opening::Unwrapping),
}

impl Ask {
    /// What to ask.
    #[must_use]
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Whether it is to open a value, not to seal one.
    #[must_use]
    pub fn is_to_open(&self) -> bool {
        matches!(self.then, Then::ConsentToOpen(_) | Then::Open(_))
    }
}

/// The data keys of a session, and what it knows about them. `P` stands for a request that runs in the background; dropping it
/// cancels the request.
pub struct Policy<P> {
    sealing: SealingKeys,
    opening: OpeningKeys,
    refreshes: Refreshes<P>,
    refusals: Refusals,
    refused_wrapped_keys: RefusedWrappedKeys,
    allowed: AllowedKeys,
    allowed_generation: u64,
    /// What all processes were told, as far as this session has acted on it. `None`: it cannot see that.
    seen_epochs: Option<Epochs>,
    /// When it last dropped its data keys because of that.
    blind_since: Option<Instant>,
    /// Those of the session, which all of its data keys seal with.
    message_keys: Rc<MessageKeys>,
    budget: Budget,
    notes: Vec<Note>,
    /// Spreads the refreshes of many sessions.
    spread: u64,
    /// Spreads those of many servers.
    server_seed: u64,
}

impl<P> Policy<P> {
    /// A session without data keys. `seed`, which nobody can tell, spreads its refreshes, so that the sessions of a server do not all
    /// ask at once, and chooses what goes when its caches are full;
    /// `server_seed` those of its server, so that servers that were started together do not either.
    #[must_use]
    pub fn new(world: &impl Surroundings, seed: u64, server_seed: u64) -> Self {
        Self {
            sealing: SealingKeys::with_seed(seed),
            opening: OpeningKeys::with_seed(seed),
            refreshes: Refreshes::default(),
            refusals: Refusals::default(),
            refused_wrapped_keys: RefusedWrappedKeys::new(MAX_REFUSED_WRAPPED_KEYS),
            allowed: world.allowed_keys(),
            allowed_generation: world.allowed_keys_generation(),
            seen_epochs: world.epochs(),
            blind_since: None,
            message_keys: Rc::default(),
            budget: Budget::default(),
            notes: Vec::new(),
            spread: seed,
            server_seed,
        }
    }

    /// The data key that opens a value.
    ///
    /// # Errors
    /// Why it may not be had.
    pub fn open(&mut self, head: &Head<'_>, world: &impl Surroundings) -> Result<Step<P>, PolicyError> {
        self.start_opening(head, world)
    }

    /// The data key that seals `plaintext_bytes` bytes under a key, as the statement names it, and an encryption context.
    ///
    /// # Errors
    /// Why it may not be had.
    pub fn seal(
        &mut self,
        key_id: &str,
        context: &EncryptionContext,
        plaintext_bytes: usize,
        world: &impl Surroundings,
    ) -> Result<Step<P>, PolicyError> {
        self.start_sealing(key_id, context, plaintext_bytes, world)
    }

    /// The current data key of a key and an encryption context, whether or not the session has one: for after a replacement.
    ///
    /// # Errors
    /// Why it may not be had.
    pub fn renew(
        &mut self,
        key_id: &str,
        context: &EncryptionContext,
        world: &impl Surroundings,
    ) -> Result<Step<P>, PolicyError> {
        self.generate(sealing::Place::new(key_id, context, 0), world)
    }

    /// Goes on with the answer to a question.
    ///
    /// # Errors
    /// Why the data key may not be had.
    pub fn answered(
        &mut self,
        ask: Ask,
        reply: Result<Reply, KmsError>,
        world: &impl Surroundings,
    ) -> Result<Step<P>, PolicyError> {
        let Ask { request, asked, waiting_since, then } = ask;
        let is_to_ask_again = match &reply {
            Ok(reply) => is_overtaken(reply, &request, asked, waiting_since, world),
            // It has made the one that it may make at a time, and needs another one.
            Err(error) => error.kind == KmsErrorKind::NoCallLeft && error.calls > 0,
        };
        let reply = self.take_reply(reply, asked, request.context(), world);
        if is_to_ask_again && (reply.is_ok() || self.budget.check(world).is_ok()) {
            let (asked, terms) = (self.asked(world), self.terms(&request.key_id(), world));
            return Ok(self.ask(request.under(terms), asked, then, world));
        }
        match then {
            Then::ConsentToOpen(cached) => {
                self.settle(&cached, asked, reply, world).map_err(opening::one_message)?;
                self.consented(cached, world)
            }
            Then::ConsentToSeal(cached, place) => match self.settle(&cached, asked, reply, world) {
                Ok(()) => {
                    self.check_allowed(place.key_id(), world)?;
                    self.consented(cached, world)
                }
                // Not this data key any more. A new one may be had: where only kms:GenerateDataKey is allowed, or when the
                // alias points to another key by now.
                Err(PolicyError::Kms(error)) if error.kind.is_refusal() => self.generate(place, world),
                Err(error) => Err(error),
            },
            Then::Seal(place) => self.generated(place, asked, reply, world),
            Then::Open(unwrapping) => self.unwrapped(unwrapping, asked, request, reply, world),
        }
    }

    /// A question was given up, or could not be asked, and not because of a provider.
    pub fn unanswered(&mut self, ask: &Ask, world: &impl Surroundings) {
        if let Then::ConsentToOpen(cached) | Then::ConsentToSeal(cached, _) = &ask.then {
            cached.refresh_failed(failed_at(ask.asked, world));
        }
    }

    /// A question that may not be asked, since the user has no right on the key: the next one for the value.
    ///
    /// # Errors
    /// There is none; why an earlier one was in vain, if there was one.
    pub fn skip(&mut self, ask: Ask, world: &impl Surroundings) -> Result<Ask, Option<PolicyError>> {
        self.budget.settle(ask.asked.statement, 0, world);
        let Then::Open(unwrapping) = ask.then else { return Err(None) };
        self.skip_wrapped(unwrapping, world)
    }

    /// Begins a call that is not for a data key of this session, such as one that rewraps.
    ///
    /// # Errors
    /// [`PolicyError::TooManyCalls`].
    pub fn begin_call(&mut self, world: &impl Surroundings) -> Result<(), PolicyError> {
        self.budget.check(world)?;
        self.budget.count(world);
        Ok(())
    }

    /// Ends a call that this statement began: counts those that were made, and heeds a refusal.
    ///
    /// # Errors
    /// What the provider said; [`PolicyError::TooManyCalls`].
    pub fn end_call(
        &mut self,
        context: &EncryptionContext,
        reply: Result<Reply, KmsError>,
        world: &impl Surroundings,
    ) -> Result<Reply, PolicyError> {
        let asked = self.asked(world);
        self.take_reply(reply, asked, context, world)
    }

    /// Counts the calls that a request came to, to the statement that it was made for, and heeds a refusal.
    fn take_reply(
        &mut self,
        reply: Result<Reply, KmsError>,
        asked: Asked,
        context: &EncryptionContext,
        world: &impl Surroundings,
    ) -> Result<Reply, PolicyError> {
        self.budget.settle(asked.statement, reply.as_ref().map_or_else(|error| error.calls, Reply::calls), world);
        match reply {
            Err(error) if error.kind == KmsErrorKind::NoCallLeft => {
                Err(PolicyError::TooManyCalls(world.max_calls().unwrap_or_default()))
            }
            reply => Ok(reply.inspect_err(|error| self.heed_refusal(error, context, world))?),
        }
    }

    /// How many calls were made.
    #[must_use]
    pub fn budget(&mut self) -> &mut Budget {
        &mut self.budget
    }

    /// What the driver is to log, to count and to start, in order.
    #[must_use]
    pub fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// Whether there are notes to take.
    #[must_use]
    pub fn has_notes(&self) -> bool {
        !self.notes.is_empty()
    }

    /// Whether there are background refreshes, whose answers are to be looked for.
    #[must_use]
    pub fn has_refreshes(&self) -> bool {
        !self.refreshes.is_empty()
    }

    /// Checks a key against the list that is in force now.
    ///
    /// # Errors
    /// [`PolicyError::KeyNotAllowed`].
    pub fn check_allowed(&mut self, key_id: &str, world: &impl Surroundings) -> Result<(), PolicyError> {
        let generation = world.allowed_keys_generation();
        if self.allowed_generation != generation {
            self.allowed = world.allowed_keys();
            self.allowed_generation = generation;
        }
        if self.allowed.allows(key_id) {
            return Ok(());
        }
        // What is no key id may be a plaintext, and is not repeated.
        Err(PolicyError::KeyNotAllowed(KeyId::parse(key_id)?.to_string()))
    }

    /// As [`Self::check_allowed`], of a cached data key, which keeps the verdict until the list changes.
    fn check_cached(&mut self, cached: &CachedKey, world: &impl Surroundings) -> Result<(), PolicyError> {
        let generation = world.allowed_keys_generation();
        if !cached.is_allowed_by(generation) {
            self.check_allowed(cached.data_key().key_id(), world)?;
            cached.allowed_by(generation);
        }
        Ok(())
    }

    /// Whether the session has the data key of a value, and may use it without asking.
    pub fn is_warm(&mut self, head: &Head<'_>, world: &impl Surroundings) -> bool {
        use crate::cache::Consent;
        self.heed(world);
        let found = self.opening.peek(head.dek_identity());
        found.is_some_and(|cached| cached.consent(world.now(), &world.limits()) != Consent::Expired)
    }

    /// The data keys: the key id that statements name if it seals new values, and the data key.
    pub fn for_each_cached(&mut self, world: &impl Surroundings, mut read: impl FnMut(Option<&str>, &CachedKey)) {
        self.heed(world);
        self.sealing.iter().for_each(|(key_id, cached)| read(Some(key_id), cached));
        self.opening.iter().for_each(|cached| read(None, cached));
    }

    /// Notes once in a while that data keys are asked for again for want of room: `before` this miss so many were.
    fn note_evictions(&mut self, before: u64, now: u64) {
        if now > before && now.is_multiple_of(NOTED_EVICTIONS) {
            self.notes.push(Note::CacheShort(now));
        }
    }

    /// What has happened to the data keys for sealing, and to those for opening.
    #[must_use]
    pub fn cache_counts(&self) -> [CacheCounts; 2] {
        [self.sealing.counts(), self.opening.counts()]
    }

    /// How much of what fits the fuller of the two caches has: 1 is all.
    #[must_use]
    pub fn cache_fill(&self, limits: &Limits) -> f64 {
        self.sealing.fill(limits).max(self.opening.fill(limits))
    }

    /// Drops all data keys, and says how many there were for opening values.
    pub fn flush(&mut self) -> usize {
        self.refreshes.cancel();
        self.refused_wrapped_keys.clear();
        self.sealing.clear();
        let flushed = self.opening.clear();
        wipe_stack();
        flushed
    }

    /// Drops the data keys that are of no more use whatever their provider says, and all of them if somebody has flushed. How many
    /// are left.
    pub fn prune(&mut self, world: &impl Surroundings) -> usize {
        self.heed(world);
        let (now, limits) = (world.now(), world.limits());
        let dropped = self.opening.prune(now, &limits) + self.sealing.prune(now, &limits);
        if dropped > 0 {
            wipe_stack();
        }
        self.opening.iter().count() + self.sealing.iter().count()
    }

    /// When the first data key is of no more use; `None` if there is none.
    #[must_use]
    pub fn next_useless(&self, world: &impl Surroundings) -> Option<Instant> {
        let limits = world.limits();
        let all = self.opening.iter().chain(self.sealing.iter().map(|(_, cached)| cached));
        all.filter_map(|cached| cached.useless_at(&limits)).min()
    }

    /// The flushes by everybody that the session has acted on; `None` if it cannot see them.
    #[must_use]
    pub fn seen_flushes(&self) -> Option<u64> {
        self.seen_epochs.map(|epochs| epochs.flushes)
    }

    /// Acts on what all processes were told since.
    #[inline]
    fn heed(&mut self, world: &impl Surroundings) {
        let epochs = world.epochs();
        if epochs.is_none() || epochs != self.seen_epochs {
            self.heed_change(epochs, world);
        }
    }

    #[inline(never)]
    fn heed_change(&mut self, epochs: Option<Epochs>, world: &impl Surroundings) {
        match (self.seen_epochs, epochs) {
            (_, None) => self.keep_little(world.now()),
            (Some(seen_epochs), Some(now)) if seen_epochs.flushes == now.flushes => self.sealing.clear(),
            (_, Some(_)) => drop(self.flush()),
        }
        self.seen_epochs = epochs;
    }

    /// Others may have flushed, which cannot be seen: no data key is kept for long.
    fn keep_little(&mut self, now: Instant) {
        if self.blind_since.is_none_or(|since| now.saturating_duration_since(since) >= BLIND_TIME) {
            self.flush();
            self.blind_since = Some(now);
        }
    }

    fn asked(&mut self, world: &impl Surroundings) -> Asked {
        self.heed(world);
        Asked {
            at: world.now(),
            epochs: self.seen_epochs,
            refusals: self.refusals.count(),
            statement: world.statement(),
        }
    }

    /// How old a provider's consent to the use of a key may be that another session has obtained.
    fn terms(&mut self, key_id: &str, world: &impl Surroundings) -> Terms {
        let ttl = world.own_ttl(key_id).unwrap_or_else(|| world.ttl());
        Terms {
            fresh_for: ttl,
            stale_for: ttl.saturating_add(world.limits().stale_if_unreachable),
            calls: match self.budget.allowed(world) {
                crate::request::Calls::Ahead if !world.may_look_ahead() => crate::request::Calls::Needed,
                calls => calls,
            },
            is_ahead: false,
        }
    }

    /// A question about a data key that the statement waits for.
    fn ask(&mut self, request: Request, asked: Asked, then: Then, world: &impl Surroundings) -> Step<P> {
        debug_assert!(request.terms().is_some(), "it says by itself which calls it may take");
        self.budget.count(world);
        Step::Ask(Ask { request, asked, waiting_since: asked.at, then })
    }

    /// Keeps a data key that was just handed out, if its key is allowed, and was not refused since it was asked for. One that was
    /// asked for before a flush is good for the value at hand only; whether it is kept.
    fn keep(
        &mut self,
        data_key: DataKey,
        consent: ConsentAge,
        asked: Asked,
        world: &impl Surroundings,
    ) -> Result<(Rc<CachedKey>, bool), PolicyError> {
        self.check_allowed(data_key.key_id(), world)?;
        let (now, limits) = (world.now(), world.limits());
        let spread = self.next_spread(data_key.commitment());
        let cached = Rc::new(CachedKey::new(data_key, consent.given_at(asked.at), spread));
        cached.allowed_by(world.allowed_keys_generation());
        cached.set_own_ttl(world.own_ttl(cached.data_key().key_id()));
        if consent.is_stale {
            cached.out_of_reach(now);
            self.notes.push(Note::ServedStale { decided: None, key_id: cached.data_key().key_id().to_owned() });
        }
        self.heed(world);
        if let Some(error) = self.refusals.since(asked.refusals, cached.data_key()) {
            return Err(error.clone().into());
        }
        // Who cannot see flushes keeps what it has asked for since it last dropped all.
        let is_kept = match self.seen_epochs {
            Some(epochs) => asked.flushes() == Some(epochs.flushes),
            None => asked.epochs.is_none() && self.blind_since.is_some_and(|since| asked.at >= since),
        };
        if is_kept {
            self.opening.insert(Rc::clone(&cached), now, &limits);
        }
        Ok((cached, is_kept))
    }

    /// Drops data keys, and says how many there were for opening values.
    fn forget(&mut self, is_refused: impl Fn(&DataKey) -> bool) -> usize {
        self.sealing.remove_if(&is_refused);
        self.opening.remove_if(&is_refused)
    }

    /// Drops the data keys of a key that its provider refuses: at once, whatever the data key that was asked for; if access to it
    /// is denied, those of the encryption context.
    fn heed_refusal(&mut self, error: &KmsError, context: &EncryptionContext, world: &impl Surroundings) {
        if !error.is_refusal_of_key() {
            return;
        }
        self.heed(world);
        self.refusals.note(error, context);
        if self.forget(|data_key| error.refuses(data_key.key_id(), data_key.context(), context)) > 0 {
            self.notes.push(Note::Refused(error.clone()));
        }
    }

    /// Where a data key stands among those that are refreshed sooner or later: three quarters by the server, so that servers that
    /// began together do not go on in step, and a quarter by the session. The session's is from xorshift64 (Marsaglia, "Xorshift
    /// RNGs"), the server's is a hash (FNV-1a) of its seed and the data key.
    fn next_spread(&mut self, commitment: &Commitment) -> u8 {
        self.spread |= 1 << 63;
        self.spread ^= self.spread << 13;
        self.spread ^= self.spread >> 7;
        self.spread ^= self.spread << 17;
        let bytes = self.server_seed.to_le_bytes().into_iter().chain(commitment.0.into_iter().take(8));
        let hash = bytes
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        ((hash >> 32) % 192 + (self.spread >> 32) % 64) as u8
    }
}

/// Whether the time of a data key that the broker had in memory, or that was asked for in the background, was up before the session
/// took up the answer. What was asked of its provider because of this question may be used, however long that took.
fn is_overtaken(
    reply: &Reply,
    request: &Request,
    asked: Asked,
    waiting_since: Instant,
    world: &impl Surroundings,
) -> bool {
    let Some(consent) = reply.consent() else { return false };
    let (given, limits) = (consent.given_at(asked.at), world.limits());
    let ttl = world.own_ttl(&request.key_id()).unwrap_or(limits.ttl);
    let good_for = if consent.is_stale { ttl.saturating_add(limits.stale_if_unreachable) } else { ttl };
    given < waiting_since && world.now().saturating_duration_since(given) >= good_for
}

/// When a call failed: a session that was idle since may take up the answer much later than it came.
fn failed_at(asked: Asked, world: &impl Surroundings) -> Instant {
    world.now().min(asked.at + world.call_timeout())
}
