//! The bounded caches of data keys. They know no KMS; time is a parameter.
//!
//! Keys are handed out as `Rc`: they are wiped when the cache has dropped them and the call that uses them ends.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::time::{Duration, Instant};

use lru::LruCache;

use crate::context::EncryptionContext;
use crate::value::DataKey;

/// How long and how much a data key may be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Entries of each cache.
    pub entries: NonZeroUsize,
    /// How long a data key may be used before its provider is asked again whether it may.
    pub ttl: Duration,
    /// How long a data key seals new values.
    pub max_age: Duration,
    /// How many values a data key seals; `None`: any number.
    pub max_uses: Option<u64>,
    /// How many plaintext bytes a data key seals; `None`: any number.
    pub max_bytes: Option<u64>,
}

/// A data key, and when its provider last confirmed it.
#[derive(Clone)]
struct Entry {
    data_key: Rc<DataKey>,
    confirmed: Instant,
}

impl Entry {
    fn is_fresh(&self, now: Instant, limits: &Limits) -> bool {
        now.saturating_duration_since(self.confirmed) < limits.ttl
    }
}

/// The data keys for opening values, by their identity; the least recently used goes first.
pub struct OpeningKeys {
    entries: LruCache<Box<[u8]>, Entry>,
    /// A scan meets the same data key again and again: one comparison finds it.
    last: Option<Entry>,
}

impl OpeningKeys {
    /// An empty cache.
    #[must_use]
    pub fn new() -> Self {
        Self { entries: LruCache::unbounded(), last: None }
    }

    /// The data key of an identity, if it is here and fresh.
    pub fn find(&mut self, identity: &[u8], now: Instant, limits: &Limits) -> Option<Rc<DataKey>> {
        if let Some(last) = &self.last
            && last.data_key.identity() == identity
            && last.is_fresh(now, limits)
        {
            return Some(Rc::clone(&last.data_key));
        }
        let entry = self.entries.get(identity)?;
        if !entry.is_fresh(now, limits) {
            self.remove(identity);
            return None;
        }
        self.last = Some(entry.clone());
        Some(Rc::clone(&entry.data_key))
    }

    /// Adds a data key that its provider has just confirmed, and drops those that are too old or too many.
    pub fn insert(&mut self, data_key: Rc<DataKey>, now: Instant, limits: &Limits) {
        let entry = Entry { data_key, confirmed: now };
        self.last = Some(entry.clone());
        self.entries.put(entry.data_key.identity().into(), entry);
        self.entries.retain(|_, entry| entry.is_fresh(now, limits));
        while self.entries.len() > limits.entries.get() {
            self.entries.pop_lru();
        }
    }

    /// Drops one data key.
    pub fn remove(&mut self, identity: &[u8]) {
        self.last.take_if(|last| last.data_key.identity() == identity);
        self.entries.pop(identity);
    }

    /// Drops all, and says how many there were.
    pub fn clear(&mut self) -> usize {
        let entries = self.entries.len();
        self.last = None;
        self.entries.clear();
        entries
    }
}

impl Default for OpeningKeys {
    fn default() -> Self {
        Self::new()
    }
}

/// A data key that seals new values under one key id and encryption context.
struct Current {
    /// As in the statement: aliases are not resolved.
    key_id: String,
    context: EncryptionContext,
    data_key: Rc<DataKey>,
    made: Instant,
    confirmed: Cell<Instant>,
    uses: Cell<u64>,
    bytes: Cell<u64>,
}

impl Current {
    fn is_for(&self, key_id: &str, context: &EncryptionContext) -> bool {
        self.key_id == key_id && self.context == *context
    }

    fn is_spent(&self, plaintext_bytes: u64, now: Instant, limits: &Limits) -> bool {
        let bytes = self.bytes.get().saturating_add(plaintext_bytes);
        now.saturating_duration_since(self.made) >= limits.max_age
            || limits.max_uses.is_some_and(|max| self.uses.get() >= max)
            || limits.max_bytes.is_some_and(|max| bytes > max)
    }

    fn is_fresh(&self, now: Instant, limits: &Limits) -> bool {
        now.saturating_duration_since(self.confirmed.get()) < limits.ttl
    }

    fn count_use(&self, plaintext_bytes: u64) {
        self.uses.set(self.uses.get() + 1);
        self.bytes.set(self.bytes.get().saturating_add(plaintext_bytes));
    }
}

/// What [`SealingKeys::find`] found.
pub enum Found {
    /// A data key to seal with; the use is counted.
    Current(Rc<DataKey>),
    /// A data key that may go on sealing once its provider confirms it: see [`SealingKeys::confirm`].
    Unconfirmed(Rc<DataKey>),
    /// None: a new one is needed.
    Nothing,
}

/// The current data key of each key id and encryption context; the least recently used goes first.
pub struct SealingKeys {
    current: LruCache<(String, EncryptionContext), Rc<Current>>,
    last: Option<Rc<Current>>,
}

impl SealingKeys {
    /// An empty cache.
    #[must_use]
    pub fn new() -> Self {
        Self { current: LruCache::unbounded(), last: None }
    }

    /// The data key to seal `plaintext_bytes` bytes with.
    pub fn find(
        &mut self,
        key_id: &str,
        context: &EncryptionContext,
        plaintext_bytes: usize,
        now: Instant,
        limits: &Limits,
    ) -> Found {
        let current = match &self.last {
            Some(last) if last.is_for(key_id, context) => last,
            _ => {
                let Some(current) = self.current.get(&(key_id.to_owned(), context.clone())) else {
                    return Found::Nothing;
                };
                self.last.insert(Rc::clone(current))
            }
        };
        let plaintext_bytes = plaintext_bytes as u64;
        if current.is_spent(plaintext_bytes, now, limits) {
            self.remove(key_id, context);
            return Found::Nothing;
        }
        let data_key = Rc::clone(&current.data_key);
        if !current.is_fresh(now, limits) {
            return Found::Unconfirmed(data_key);
        }
        current.count_use(plaintext_bytes);
        Found::Current(data_key)
    }

    /// Notes that the provider has just confirmed the data key of a key id and context, and counts its use for
    /// `plaintext_bytes` bytes.
    pub fn confirm(&mut self, key_id: &str, context: &EncryptionContext, plaintext_bytes: usize, now: Instant) {
        if let Some(current) = self.current.get(&(key_id.to_owned(), context.clone())) {
            current.confirmed.set(now);
            current.count_use(plaintext_bytes as u64);
        }
    }

    /// Adds a new data key and counts its use for `plaintext_bytes` bytes. Drops those that are spent or too many.
    pub fn insert(
        &mut self,
        key_id: &str,
        context: &EncryptionContext,
        data_key: Rc<DataKey>,
        plaintext_bytes: usize,
        now: Instant,
        limits: &Limits,
    ) {
        self.current.retain(|_, current| !current.is_spent(0, now, limits));
        let current = Rc::new(Current {
            key_id: key_id.to_owned(),
            context: context.clone(),
            data_key,
            made: now,
            confirmed: Cell::new(now),
            uses: Cell::new(1),
            bytes: Cell::new(plaintext_bytes as u64),
        });
        self.last = Some(Rc::clone(&current));
        self.current.put((key_id.to_owned(), context.clone()), current);
        while self.current.len() > limits.entries.get() {
            self.current.pop_lru();
        }
    }

    /// Drops the data key of a key id and context.
    pub fn remove(&mut self, key_id: &str, context: &EncryptionContext) {
        self.last = None;
        self.current.pop(&(key_id.to_owned(), context.clone()));
    }

    /// Drops all.
    pub fn clear(&mut self) {
        self.last = None;
        self.current.clear();
    }
}

impl Default for SealingKeys {
    fn default() -> Self {
        Self::new()
    }
}
