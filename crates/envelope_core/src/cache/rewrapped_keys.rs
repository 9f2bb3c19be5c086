//! Wrapped keys that a provider has rewrapped, so that it is asked once for each data key and not once for each value.
//! Nothing here is secret: it all stands in values.
//!
//! That a data key is wrapped so under the other key does not change with time. What does is whether the provider still
//! consents to moving data keys from the one key to the other: it is asked again, for any one of them, when its last
//! consent is older than the time to live.

use std::num::NonZeroUsize;
use std::rc::Rc;
use std::time::{Duration, Instant};

use lru::LruCache;

use crate::format::WrappedKeys;

/// Data keys for each target, about 700 bytes each.
const ENTRIES: usize = 65_536;
/// Keys that are moved to, and keys that are moved from to each of them.
const KEYS: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// A data key under another key.
pub struct Rewrapped {
    /// The key that wrapped it before.
    pub source: String,
    /// How it is wrapped now.
    pub wrapped_keys: WrappedKeys,
}

/// What one key has been asked to wrap.
struct Target {
    entries: LruCache<Box<[u8]>, Rc<Rewrapped>>,
    /// When the provider last agreed, by the key that wrapped before.
    consents: LruCache<String, Instant>,
}

/// The rewrapped keys of a session; the least recently used go first.
pub struct RewrappedKeys {
    /// What key ids in statements stand for, and since when that is known.
    resolved: LruCache<String, (Rc<str>, Instant)>,
    targets: LruCache<String, Target>,
}

impl RewrappedKeys {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self { resolved: LruCache::new(KEYS), targets: LruCache::new(KEYS) }
    }

    /// The key that a key id stands for, if the provider has said so lately.
    pub fn resolve(&mut self, key_id: &str, now: Instant, ttl: Duration) -> Option<Rc<str>> {
        let (key, since) = self.resolved.get(key_id)?;
        (now.saturating_duration_since(*since) < ttl).then(|| Rc::clone(key))
    }

    /// The provider has said what key a key id stands for.
    pub fn resolved(&mut self, key_id: &str, key: &str, now: Instant) {
        self.resolved.put(key_id.to_owned(), (key.into(), now));
    }

    /// The data key of this identity under `target`, if the provider has rewrapped it and consents.
    pub fn find(&mut self, target: &str, identity: &[u8], now: Instant, ttl: Duration) -> Option<Rc<Rewrapped>> {
        let target = self.targets.get_mut(target)?;
        let found = target.entries.get(identity)?;
        let consented = target.consents.get(&found.source)?;
        (now.saturating_duration_since(*consented) < ttl).then(|| Rc::clone(found))
    }

    /// The provider was asked at `now`, and has rewrapped a data key.
    pub fn insert(&mut self, target: &str, identity: &[u8], rewrapped: Rewrapped, now: Instant) -> Rc<Rewrapped> {
        // Without a bound of its own it allocates as it grows.
        let new = || Target { entries: LruCache::unbounded(), consents: LruCache::new(KEYS) };
        let target = self.targets.get_or_insert_mut_ref(target, new);
        target.consents.put(rewrapped.source.clone(), now);
        let rewrapped = Rc::new(rewrapped);
        target.entries.put(identity.into(), Rc::clone(&rewrapped));
        if target.entries.len() > ENTRIES {
            target.entries.pop_lru();
        }
        rewrapped
    }

    /// Drops all.
    pub fn clear(&mut self) {
        self.resolved.clear();
        self.targets.clear();
    }
}

impl Default for RewrappedKeys {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(900);

    fn rewrapped(source: &str) -> Rewrapped {
        Rewrapped { source: source.into(), wrapped_keys: WrappedKeys::write(&[]).unwrap() }
    }

    #[test]
    fn an_entry_is_for_one_data_key_and_one_target() {
        let (mut keys, now) = (RewrappedKeys::new(), Instant::now());
        keys.insert("b", b"dek 1", rewrapped("a"), now);
        assert!(keys.find("b", b"dek 1", now, TTL).is_some());
        assert!(keys.find("b", b"dek 2", now, TTL).is_none());
        assert!(keys.find("c", b"dek 1", now, TTL).is_none());
        keys.clear();
        assert!(keys.find("b", b"dek 1", now, TTL).is_none());
    }

    #[test]
    fn one_call_in_a_while_confirms_all_data_keys_of_a_key() {
        let (mut keys, start) = (RewrappedKeys::new(), Instant::now());
        for (identity, source) in [(b"dek 1", "a"), (b"dek 2", "a"), (b"dek 3", "z")] {
            keys.insert("b", identity, rewrapped(source), start);
        }
        let later = start + TTL;
        assert!(keys.find("b", b"dek 1", later, TTL).is_none());
        keys.insert("b", b"dek 1", rewrapped("a"), later);
        assert!(keys.find("b", b"dek 2", later, TTL).is_some());
        assert!(keys.find("b", b"dek 3", later, TTL).is_none(), "of another key");
    }

    #[test]
    fn what_an_alias_stands_for_is_asked_again() {
        let (mut keys, start) = (RewrappedKeys::new(), Instant::now());
        keys.resolved("alias/app", "arn", start);
        assert_eq!(keys.resolve("alias/app", start, TTL).as_deref(), Some("arn"));
        assert_eq!(keys.resolve("alias/app", start + TTL, TTL), None);
        assert_eq!(keys.resolve("alias/other", start, TTL), None);
    }

    #[test]
    fn it_is_bounded() {
        let (mut keys, now) = (RewrappedKeys::new(), Instant::now());
        for number in 0..=ENTRIES as u64 {
            keys.insert("b", &number.to_be_bytes(), rewrapped("a"), now);
        }
        assert!(keys.find("b", &0_u64.to_be_bytes(), now, TTL).is_none());
        assert!(keys.find("b", &1_u64.to_be_bytes(), now, TTL).is_some());
    }
}
