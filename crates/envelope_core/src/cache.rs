//! The bounded caches of data keys. They know no KMS; time is a parameter.
//!
//! Keys are handed out as `Rc`: they are wiped when the cache has dropped them and the call that uses them ends.
//!
//! - [`bounded`]: a map with bounds, and what goes first
//! - [`CachedKey`]: a data key, and whether its provider consents to its use
//! - [`RewrappedKeys`]: what rotation has had rewrapped, which is not secret
//! - [`RefusedWrappedKeys`]: what need not be asked for again

pub mod bounded;
mod cached_key;
mod refused_wrapped_keys;
mod rewrapped_keys;

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::context::EncryptionContext;
use crate::request::Lease;
use crate::value::DataKey;
use bounded::{Bounded, Bounds, CacheCounts, Entry};
pub use cached_key::{Authorisation, CachedKey, Consent};
pub use refused_wrapped_keys::RefusedWrappedKeys;
pub use rewrapped_keys::{Rewrapped, RewrappedKeys};

/// With each data key that comes so many others are looked at whether they are of use still.
const SWEPT: usize = 2;

/// How long and how much a data key may be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// How many of them a session keeps for opening and as many for sealing, and how much memory each of both takes.
    pub bounds: Bounds,
    /// How long a data key may be used before its provider is asked again whether it may.
    pub ttl: Duration,
    /// How much longer it may be used while the provider is unreachable or throttles.
    pub stale_if_unreachable: Duration,
    /// How long a data key seals new values.
    pub max_age: Duration,
    /// How many values a data key seals; `None`: any number.
    pub max_uses: Option<u64>,
    /// How many plaintext bytes a data key seals; `None`: any number.
    pub max_bytes: Option<u64>,
}

/// The data keys for opening values, by their identity.
#[derive(Default)]
pub struct OpeningKeys {
    entries: Bounded<Rc<CachedKey>>,
    /// A scan meets the same data key again and again: one comparison finds it.
    last: Option<Rc<CachedKey>>,
}

impl Entry for Rc<CachedKey> {
    type Name<'a> = &'a [u8];

    fn is_named(&self, identity: &[u8]) -> bool {
        self.data_key().identity() == identity
    }

    fn bytes(&self) -> usize {
        size_of::<CachedKey>() + self.data_key().heap_bytes()
    }
}

impl OpeningKeys {
    /// An empty cache, from which the same data keys go for the same seed.
    #[must_use]
    pub fn with_seed(seed: u64) -> Self {
        Self { entries: Bounded::with_seed(seed), last: None }
    }

    /// The data key of an identity; its use is not counted. Its [`CachedKey::consent`] says whether it may be used.
    pub fn find(&mut self, identity: &[u8]) -> Option<Rc<CachedKey>> {
        if let Some(last) = &self.last
            && last.data_key().identity() == identity
        {
            return Some(Rc::clone(last));
        }
        let cached = self.entries.get(identity)?;
        self.last = Some(Rc::clone(cached));
        Some(Rc::clone(cached))
    }

    /// As [`Self::find`], without being in use for that.
    #[must_use]
    pub fn peek(&self, identity: &[u8]) -> Option<&CachedKey> {
        self.entries.peek(identity).map(|cached| &**cached)
    }

    /// Counts that the data key of a value was there.
    #[inline]
    pub fn count_hit(&mut self) {
        self.entries.count_hit();
    }

    /// Counts that the data key of an identity has to be asked for.
    pub fn count_miss(&mut self, identity: &[u8]) {
        self.entries.count_miss(identity);
    }

    /// Adds a data key, and drops others that are of no more use or too many.
    pub fn insert(&mut self, cached: Rc<CachedKey>, now: Instant, limits: &Limits) {
        self.last = Some(Rc::clone(&cached));
        self.entries.sweep(SWEPT, |cached| !cached.is_useless(now, limits));
        self.entries.put(Rc::clone(&cached).data_key().identity(), cached, &limits.bounds);
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &CachedKey> {
        self.entries.iter().map(|cached| &**cached)
    }

    /// How much of what fits is taken: see [`Bounded::fill`].
    #[must_use]
    pub fn fill(&self, limits: &Limits) -> f64 {
        self.entries.fill(&limits.bounds)
    }

    /// What has happened so far.
    #[must_use]
    pub fn counts(&self) -> CacheCounts {
        self.entries.counts()
    }

    /// Drops those that are of no more use, and says how many there were.
    pub fn prune(&mut self, now: Instant, limits: &Limits) -> usize {
        let entries = self.entries.len();
        self.last = None;
        self.entries.retain(|cached| !cached.is_useless(now, limits));
        entries - self.entries.len()
    }

    /// Drops the data keys that `is_refused` names, and says how many there were.
    pub fn remove_if(&mut self, is_refused: impl Fn(&DataKey) -> bool) -> usize {
        let entries = self.entries.len();
        self.last = None;
        self.entries.retain(|cached| !is_refused(cached.data_key()));
        entries - self.entries.len()
    }

    /// Drops all, and says how many there were.
    pub fn clear(&mut self) -> usize {
        let entries = self.entries.len();
        self.last = None;
        self.entries.clear();
        entries
    }
}

/// A data key that seals new values under one key id and encryption context.
struct Current {
    /// As in the statement: aliases are not resolved.
    key_id: String,
    context: EncryptionContext,
    cached: Rc<CachedKey>,
    made: Instant,
    /// What the session may use, if that is less than the limits.
    lease: Lease,
    uses: Cell<u64>,
    bytes: Cell<u64>,
    /// The list of allowed keys that both keys were found in, the one that statements name and the one behind it.
    allowed_by: Cell<Option<u64>>,
}

/// A data key that seals new values from now on.
pub struct NewCurrent {
    /// The data key.
    pub cached: Rc<CachedKey>,
    /// When it was made.
    pub made: Instant,
    /// What the session may use of its limits before it has to ask again.
    pub lease: Lease,
    /// Plaintext bytes of the value that needs it now.
    pub plaintext_bytes: usize,
    /// The list of allowed keys that its keys were found in, by the list's generation.
    pub allowed_by: Option<u64>,
}

impl Current {
    fn is_for(&self, key_id: &str, context: &EncryptionContext) -> bool {
        // Not for elegance: glibc's memcmp of no bytes at Rust's address of an empty Vec reads from there under a mask, which
        // the processor suppresses only by a slow path, of 70 ns on Zen 4.
        let both_empty = self.context.as_bytes().is_empty() && context.as_bytes().is_empty();
        self.key_id == key_id && (both_empty || self.context == *context)
    }

    fn is_spent(&self, plaintext_bytes: u64, now: Instant, limits: &Limits) -> bool {
        let bytes = self.bytes.get().saturating_add(plaintext_bytes);
        now.saturating_duration_since(self.made) >= limits.max_age
            || at_most(limits.max_uses, self.lease.uses).is_some_and(|max| self.uses.get() >= max)
            || at_most(limits.max_bytes, self.lease.bytes).is_some_and(|max| bytes > max)
    }
}

/// The smaller of two limits; `None` is no limit.
fn at_most(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.into_iter().chain(other).min()
}

/// The current data key of each key id and encryption context.
#[derive(Default)]
pub struct SealingKeys {
    entries: Bounded<Rc<Current>>,
    last: Option<Rc<Current>>,
}

impl Entry for Rc<Current> {
    type Name<'a> = (&'a str, &'a EncryptionContext);

    fn is_named(&self, (key_id, context): (&str, &EncryptionContext)) -> bool {
        self.is_for(key_id, context)
    }

    fn bytes(&self) -> usize {
        let names = self.key_id.len() + self.context.as_bytes().len();
        size_of::<Current>() + names + size_of::<CachedKey>() + self.cached.data_key().heap_bytes()
    }
}

impl SealingKeys {
    /// An empty cache, from which the same data keys go for the same seed.
    #[must_use]
    pub fn with_seed(seed: u64) -> Self {
        Self { entries: Bounded::with_seed(seed), last: None }
    }

    /// The data key to seal `plaintext_bytes` bytes with, unless it is spent: [`Self::count_last`] counts the use. Its
    /// [`CachedKey::consent`] says whether it may be used, and the generation of the list of allowed keys, whether its keys were
    /// found in it.
    pub fn find(
        &mut self,
        key_id: &str,
        context: &EncryptionContext,
        plaintext_bytes: usize,
        now: Instant,
        limits: &Limits,
    ) -> Option<(Rc<CachedKey>, Option<u64>)> {
        let current = self.current(key_id, context)?;
        let plaintext_bytes = plaintext_bytes as u64;
        if current.is_spent(plaintext_bytes, now, limits) {
            return None;
        }
        Some((Rc::clone(&current.cached), current.allowed_by.get()))
    }

    /// Counts that the data key of a key id and an encryption context has to be asked for.
    pub fn count_miss(&mut self, key_id: &str, context: &EncryptionContext) {
        self.entries.count_miss((key_id, context));
    }

    /// The data key that was found last is used for a value.
    #[inline]
    pub fn count_last(&mut self, plaintext_bytes: usize) {
        self.entries.count_hit();
        if let Some(last) = &self.last {
            last.uses.set(last.uses.get() + 1);
            last.cached.count_use();
            last.bytes.set(last.bytes.get().saturating_add(plaintext_bytes as u64));
        }
    }

    /// The keys of the data key that was found last are in the list of allowed keys of this generation.
    pub fn allow_last(&self, generation: u64) {
        if let Some(last) = &self.last {
            last.allowed_by.set(Some(generation));
        }
    }

    /// The data key in use until now, spent or not: for when no new one can be had.
    pub fn find_spent(&mut self, key_id: &str, context: &EncryptionContext) -> Option<Rc<CachedKey>> {
        self.current(key_id, context).map(|current| Rc::clone(&current.cached))
    }

    fn current(&mut self, key_id: &str, context: &EncryptionContext) -> Option<&Current> {
        if !self.last.as_ref().is_some_and(|last| last.is_for(key_id, context)) {
            self.last = self.entries.get((key_id, context)).cloned();
        }
        self.last.as_deref()
    }

    /// Puts a data key in the place of the one before, and counts its use for the value at hand. Drops others that are of no
    /// more use or too many.
    pub fn insert(
        &mut self,
        key_id: &str,
        context: &EncryptionContext,
        new: NewCurrent,
        now: Instant,
        limits: &Limits,
    ) {
        self.entries.sweep(SWEPT, |current| !current.cached.is_useless(now, limits));
        let current = Rc::new(Current {
            key_id: key_id.to_owned(),
            context: context.clone(),
            cached: new.cached,
            made: new.made,
            lease: new.lease,
            uses: Cell::new(1),
            bytes: Cell::new(new.plaintext_bytes as u64),
            allowed_by: Cell::new(new.allowed_by),
        });
        self.last = Some(Rc::clone(&current));
        self.entries.put((key_id, context), current, &limits.bounds);
    }

    /// All of them: the key id that statements name, and the data key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &CachedKey)> {
        self.entries.iter().map(|current| (current.key_id.as_str(), &*current.cached))
    }

    /// How much of what fits is taken: see [`Bounded::fill`].
    #[must_use]
    pub fn fill(&self, limits: &Limits) -> f64 {
        self.entries.fill(&limits.bounds)
    }

    /// What has happened so far.
    #[must_use]
    pub fn counts(&self) -> CacheCounts {
        self.entries.counts()
    }

    /// Drops those that are of no more use, and says how many there were.
    pub fn prune(&mut self, now: Instant, limits: &Limits) -> usize {
        let entries = self.entries.len();
        self.last = None;
        self.entries.retain(|current| !current.cached.is_useless(now, limits));
        entries - self.entries.len()
    }

    /// Drops the data keys that `is_refused` names.
    pub fn remove_if(&mut self, is_refused: impl Fn(&DataKey) -> bool) {
        self.last = None;
        self.entries.retain(|current| !is_refused(current.cached.data_key()));
    }

    /// Drops all.
    pub fn clear(&mut self) {
        self.last = None;
        self.entries.clear();
    }
}
