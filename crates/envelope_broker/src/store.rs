//! The data keys of the broker, bounded in memory. Keys are wiped when the last user drops them.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use envelope_core::cache::bounded::{Bounded, Bounds, CacheCounts, Entry};
use envelope_core::context::EncryptionContext;
use envelope_core::keys::{Commitment, Dek, KEY_BYTES, KeyId, WrappedKey, is_same_key};
use envelope_core::request::{ConsentAge, KmsError, Lease, SealingGrant, SealingLimits, Terms};

use crate::bounded::Name;

/// The memory of the data keys for opening values, in sixteenths of all.
const HELD_SHARE: usize = 8;
/// The memory of the current data keys, in sixteenths. What is left is for looking ahead.
const CURRENT_SHARE: usize = 7;
/// What the allocator adds to a name.
const ALLOCATIONS_BYTES: usize = 64;
/// Entries that one round of [`Store::prune`] looks at.
const PRUNED: usize = 16_384;
/// Key ids that statements named lately, of which the store keeps one copy each.
const MAX_KEY_IDS: usize = 16;
/// One session gets this part of what a limit leaves, so that many can use the data key at the same time.
const LEASE_SHARE: u64 = 16;
/// After a failed attempt to refresh or to replace a data key the next one waits for so long.
const REFRESH_PAUSE: Duration = Duration::from_secs(1);

/// For one value.
pub const ONE_USE: Lease = Lease { uses: Some(1), bytes: None };
/// For none: whoever gets it asks again.
pub const NO_USE: Lease = Lease { uses: Some(0), bytes: None };

/// A wrapped data key and the encryption context that belongs to it: what a provider is asked with.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct DekName {
    /// The data key as it travels in values.
    pub wrapped: WrappedKey,
    /// Its encryption context.
    pub context: EncryptionContext,
}

/// What has a current data key: a key, as statements name it, and an encryption context.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Place {
    /// The key.
    pub key_id: KeyId,
    /// The encryption context.
    pub context: EncryptionContext,
}

impl Name for DekName {
    /// About the memory that it takes.
    fn bytes(&self) -> usize {
        let WrappedKey { key_id, wrapped_dek, .. } = &self.wrapped;
        let contents = key_id.len() + wrapped_dek.len() + self.context.as_bytes().len();
        size_of::<Self>() + ALLOCATIONS_BYTES + contents
    }
}

/// The plaintext of a data key. Has no Debug.
pub struct Held {
    /// The plaintext.
    pub dek: Dek,
    /// The key that wraps it, as the provider confirmed it.
    pub key_id: String,
    /// When the provider was asked to hand it out.
    asked: Instant,
    /// The provider has refused to unwrap data keys since it made this one.
    only_seals: Cell<bool>,
    refresh_started: Cell<Option<Instant>>,
}

impl Held {
    /// A data key that a provider has handed out after it was asked at `asked`.
    #[must_use]
    pub fn new(dek: Dek, key_id: String, asked: Instant) -> Self {
        Self { dek, key_id, asked, only_seals: Cell::new(false), refresh_started: Cell::new(None) }
    }

    /// When the provider was asked.
    #[must_use]
    pub fn asked(&self) -> Instant {
        self.asked
    }

    /// How long ago the provider was asked.
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.asked)
    }

    /// Whether it need not be asked for.
    #[must_use]
    pub fn is_fresh(&self, now: Instant, terms: &Terms) -> bool {
        self.age(now) < terms.fresh_for
    }

    /// Whether the provider was asked for it before a request of `requested`, and so for another one.
    #[must_use]
    pub fn was_asked_for_before(&self, requested: Instant) -> bool {
        self.asked < requested
    }

    /// Whether it may open values at all, not only seal new ones.
    #[must_use]
    pub fn may_open(&self) -> bool {
        !self.only_seals.get()
    }

    /// Whether to ask it again now: not while that may be under way.
    #[must_use]
    pub fn may_refresh(&self, now: Instant) -> bool {
        may_start(&self.refresh_started, now)
    }

    /// How the provider's consent stands, for a request of `requested`.
    #[must_use]
    pub fn consent(&self, requested: Instant, is_stale: bool, took_call: bool) -> ConsentAge {
        ConsentAge { age: requested.saturating_duration_since(self.asked), is_stale, took_call, calls: 0 }
    }
}

/// Whether to start now what was last started at `started`; if so, it is.
fn may_start(started: &Cell<Option<Instant>>, now: Instant) -> bool {
    let may = started.get().is_none_or(|started| now.saturating_duration_since(started) >= REFRESH_PAUSE);
    if may {
        started.set(Some(now));
    }
    may
}

/// A data key that seals new values: how much of its limits is used. Its plaintext is among the others.
pub struct Current {
    /// The data key.
    pub name: Rc<DekName>,
    /// What values under it commit to.
    pub commitment: Commitment,
    made: Instant,
    uses: Cell<u64>,
    bytes: Cell<u64>,
    retired: Cell<bool>,
    replacement_started: Cell<Option<Instant>>,
}

impl Current {
    /// A data key that was asked for at `made`.
    #[must_use]
    pub fn new(name: Rc<DekName>, commitment: Commitment, made: Instant) -> Self {
        Self {
            name,
            commitment,
            made,
            uses: Cell::new(0),
            bytes: Cell::new(0),
            retired: Cell::new(false),
            replacement_started: Cell::new(None),
        }
    }

    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.made)
    }

    /// What a session may use of it, which is taken off the limits; `None` if it is spent.
    #[must_use]
    pub fn lease(&self, limits: &SealingLimits, now: Instant) -> Option<Lease> {
        let is_over = self.retired.get() || self.age(now) >= limits.max_age;
        if is_over { None } else { self.lease_of_new(limits) }
    }

    /// [`Self::lease`] of one that was made just now, however long that took.
    #[must_use]
    pub fn lease_of_new(&self, limits: &SealingLimits) -> Option<Lease> {
        let uses = share(self.uses.get(), limits.max_uses, 1)?;
        // A value that is larger than the limit gets a data key of its own.
        let is_new = self.bytes.get() == 0;
        let wanted = limits.wanted_bytes.min(if is_new { limits.max_bytes.unwrap_or(u64::MAX) } else { u64::MAX });
        let bytes = share(self.bytes.get(), limits.max_bytes, wanted.max(1))?;
        self.uses.set(self.uses.get().saturating_add(uses.unwrap_or(0)));
        self.bytes.set(self.bytes.get().saturating_add(bytes.unwrap_or(0)));
        Some(Lease { uses, bytes })
    }

    /// Whether to make the next one now, while this one still serves: not while that may be under way.
    #[must_use]
    pub fn is_due(&self, limits: &SealingLimits, now: Instant) -> bool {
        let nearly = |used: u64, max: Option<u64>| max.is_some_and(|max| used >= max - max / LEASE_SHARE);
        let is_due = self.age(now) >= limits.max_age / 16 * 15
            || nearly(self.uses.get(), limits.max_uses)
            || nearly(self.bytes.get(), limits.max_bytes);
        is_due && may_start(&self.replacement_started, now)
    }

    /// For a session that seals values with it, and requested it at `requested`.
    #[must_use]
    pub fn grant(&self, held: &Held, lease: Lease, requested: Instant, consent: ConsentAge) -> SealingGrant {
        SealingGrant {
            dek: held.dek.copy(),
            wrapped: self.name.wrapped.clone(),
            age: requested.saturating_duration_since(self.made),
            lease,
            consent,
        }
    }
}

/// One session's share of what is left of a limit, at least `wanted`. `None` if that is not left.
#[allow(clippy::option_option, reason = "no limit is not the same as nothing left")]
fn share(used: u64, max: Option<u64>, wanted: u64) -> Option<Option<u64>> {
    let Some(max) = max else { return Some(None) };
    // A limit below one use would allow none, ever.
    let left = max.max(1).saturating_sub(used);
    (left >= wanted).then(|| Some((left / LEASE_SHARE).clamp(wanted, left)))
}

/// All data keys.
pub struct Store {
    bytes: usize,
    held: Bounded<Opening>,
    current: Bounded<Sealing>,
    key_ids: VecDeque<Rc<KeyId>>,
}

struct Opening {
    name: Rc<DekName>,
    held: Rc<Held>,
}

impl Entry for Opening {
    type Name<'a> = &'a DekName;

    fn is_named(&self, name: &DekName) -> bool {
        *self.name == *name
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.name.bytes() + size_of::<Held>() + KEY_BYTES + self.held.key_id.len()
    }
}

struct Sealing {
    /// As statements name it.
    key_id: Rc<KeyId>,
    context: EncryptionContext,
    current: Rc<Current>,
}

impl Entry for Sealing {
    type Name<'a> = &'a Place;

    fn is_named(&self, place: &Place) -> bool {
        *self.key_id == place.key_id && self.context == place.context
    }

    fn bytes(&self) -> usize {
        // Its name is another entry's, too, as long as the broker has its plaintext.
        let context = self.context.as_bytes().len();
        size_of::<Self>() + context + size_of::<Current>() + self.current.name.bytes()
    }
}

impl Store {
    /// None, in so much memory. `seed` chooses what goes when that is full.
    #[must_use]
    pub fn new(bytes: usize, seed: u64) -> Self {
        Self { bytes, held: Bounded::with_seed(seed), current: Bounded::with_seed(seed), key_ids: VecDeque::new() }
    }

    /// Keeps within so much memory from now on.
    pub fn resize(&mut self, bytes: usize) {
        self.bytes = bytes;
        self.held.make_room(usize::MAX, self.share(HELD_SHARE).bytes);
        self.current.make_room(usize::MAX, self.share(CURRENT_SHARE).bytes);
    }

    /// The bounds of what has a share of the memory.
    fn share(&self, sixteenths: usize) -> Bounds {
        Bounds { entries: u32::MAX as usize, bytes: self.bytes / 16 * sixteenths }
    }

    /// The data key of a name.
    pub fn held(&mut self, name: &DekName) -> Option<Rc<Held>> {
        self.held.get(name).map(|opening| Rc::clone(&opening.held))
    }

    /// Counts that the data key of a name was there.
    pub fn count_hit(&mut self) {
        self.held.count_hit();
    }

    /// Counts that the data key of a name has to be asked for.
    pub fn count_miss(&mut self, name: &DekName) {
        self.held.count_miss(name);
    }

    /// Adds the plaintext of a data key, or replaces it, unless the provider was asked for what there is later.
    pub fn hold(&mut self, name: &Rc<DekName>, held: &Rc<Held>) {
        if self.held.peek(name).is_some_and(|found| found.held.asked > held.asked) {
            return;
        }
        let (bounds, opening) = (self.share(HELD_SHARE), Opening { name: Rc::clone(name), held: Rc::clone(held) });
        self.held.put(name, opening, &bounds);
    }

    /// The data key that seals new values.
    pub fn current(&mut self, place: &Place) -> Option<Rc<Current>> {
        self.current.get(place).map(|sealing| Rc::clone(&sealing.current))
    }

    /// Counts that a data key has to be made.
    pub fn count_missing_current(&mut self, place: &Place) {
        self.current.count_miss(place);
    }

    /// Drops the plaintext of a data key.
    pub fn release(&mut self, name: &DekName) {
        self.held.pop(name);
    }

    /// Drops the plaintext of the data key that seals new values, so that its provider is asked about it.
    pub fn doubt_current(&mut self, place: &Place) {
        if let Some(sealing) = self.current.peek(place) {
            self.held.pop(&sealing.current.name);
        }
    }

    /// Seals new values with a data key from now on, unless there is a younger one.
    pub fn make_current(&mut self, place: &Place, current: &Rc<Current>) {
        if self.current.peek(place).is_some_and(|found| found.current.made > current.made) {
            return;
        }
        let (bounds, key_id) = (self.share(CURRENT_SHARE), self.key_id(&place.key_id));
        let sealing = Sealing { key_id, context: place.context.clone(), current: Rc::clone(current) };
        self.current.put(place, sealing, &bounds);
    }

    /// One copy for all entries.
    fn key_id(&mut self, key_id: &KeyId) -> Rc<KeyId> {
        if let Some(known) = self.key_ids.iter().find(|known| ***known == *key_id) {
            return Rc::clone(known);
        }
        let new = Rc::new(key_id.clone());
        self.key_ids.push_front(Rc::clone(&new));
        self.key_ids.truncate(MAX_KEY_IDS);
        new
    }

    /// Seals no more values with this data key; another one that took its place stays.
    pub fn remove_current(&mut self, place: &Place, current: &Rc<Current>) {
        if self.current.peek(place).is_some_and(|found| Rc::ptr_eq(&found.current, current)) {
            self.current.pop(place);
        }
    }

    /// Seals new values with new data keys from now on. The ones until now serve only while no new ones can be had.
    pub fn retire_all(&mut self) {
        self.current.iter().for_each(|sealing| sealing.current.retired.set(true));
    }

    /// As [`Self::retire_all`], under a key, by whatever name: as statements name it, and the keys that have that name.
    pub fn retire(&mut self, key_id: &KeyId) {
        let is_named = |sealing: &Sealing| *sealing.key_id == *key_id;
        let named = self.current.iter().filter(|sealing| is_named(sealing));
        let mut keys: BTreeSet<String> =
            named.map(|Sealing { current, .. }| current.name.wrapped.key_id.clone()).collect();
        keys.insert(key_id.to_string());
        for sealing in self.current.iter() {
            let Sealing { current, .. } = sealing;
            let is_of_key = |key: &String| is_same_key(&current.name.wrapped.key_id, key);
            current.retired.set(current.retired.get() || is_named(sealing) || keys.iter().any(is_of_key));
        }
    }

    /// Drops the data keys that a provider [refuses](KmsError::refuses), asked with this encryption context. If access to them is
    /// denied, those that were made for sealing and not unwrapped since serve on for that, since who may not decrypt may still be
    /// allowed to make data keys.
    pub fn remove_refused(&mut self, error: &KmsError, context: &EncryptionContext) {
        let is_under = |name: &DekName| error.refuses(&name.wrapped.key_id, &name.context, context);
        let refused = self.current.iter().filter(|sealing| error.is_denial() && is_under(&sealing.current.name));
        let made: HashMap<_, _> =
            refused.map(|Sealing { current, .. }| (Rc::clone(&current.name), current.made)).collect();
        self.held.retain(|Opening { name, held }| {
            let stays = !is_under(name) || made.get(name) == Some(&held.asked);
            held.only_seals.set(held.only_seals.get() || is_under(name));
            stays
        });
        let held = &self.held;
        self.current.retain(|Sealing { current, .. }| !is_under(&current.name) || held.peek(&current.name).is_some());
    }

    /// Drops what is of no more use: plaintext that the provider would have to hand out again in any case, and current data
    /// keys that are too old. Those that can still serve while no new ones can be had stay. A round looks at a part of many.
    pub fn prune(&mut self, useful_for: Duration, max_age: Duration, now: Instant) {
        self.held.sweep(PRUNED, |opening| opening.held.age(now) < useful_for);
        let held = &self.held;
        let is_held = |current: &Current| held.peek(&current.name).is_some();
        self.current.sweep(PRUNED, |Sealing { current, .. }| current.age(now) < max_age || is_held(current));
    }

    /// Drops all.
    pub fn clear(&mut self) {
        self.held.clear();
        self.current.clear();
    }

    /// What has happened to the data keys for opening values, and to the current ones.
    #[must_use]
    pub fn counts(&self) -> [CacheCounts; 2] {
        [self.held.counts(), self.current.counts()]
    }

    /// About the memory that they take, at most.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.held.bytes() + self.current.bytes()
    }

    /// How many data keys there are, and how many of them seal new values.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        (self.held.len(), self.current.len())
    }
}
