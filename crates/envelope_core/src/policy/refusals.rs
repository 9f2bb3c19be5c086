//! What was refused lately.
//!
//! - Keys: an answer that was asked for before the refusal and comes after it is not kept.
//! - Wrapped keys that their provider does not take: whoever can store a value can make one, and each would be a call again with
//!   each read (RFC 2308 does the same with names).

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256};
use lru::LruCache;

use crate::context::EncryptionContext;
use crate::keys::{Provider, WrappedKey};
use crate::request::{KmsError, KmsErrorKind};
use crate::value::DataKey;

/// How long a wrapped key that its provider does not take is not asked about again.
pub const REMEMBERED_FOR: Duration = Duration::from_secs(10);
/// Wrapped keys that are remembered: 100 bytes each, whatever their size.
const MAX_WRAPPED_KEYS: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();
/// Refusals of keys that are remembered: more than a session has requests under way.
const MAX_KEYS: usize = 64;

/// A wrapped key and its encryption context, by their hash.
type Name = [u8; 32];

/// What was refused lately.
pub struct Refusals {
    /// The last ones, and the encryption context that they came with.
    keys: VecDeque<(KmsError, EncryptionContext)>,
    /// Of all refusals of keys.
    count: u64,
    wrapped_keys: LruCache<Name, (Instant, KmsError)>,
}

impl Default for Refusals {
    fn default() -> Self {
        Self { keys: VecDeque::new(), count: 0, wrapped_keys: LruCache::unbounded() }
    }
}

impl Refusals {
    /// How many keys were refused up to now.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// A provider refuses a key.
    pub fn note(&mut self, error: &KmsError, context: &EncryptionContext) {
        self.count += 1;
        self.keys.push_back((error.clone(), context.clone()));
        if self.keys.len() > MAX_KEYS {
            self.keys.pop_front();
        }
    }

    /// The refusal of a data key's key since there were `count` refusals.
    #[must_use]
    pub fn since(&self, count: u64, data_key: &DataKey) -> Option<&KmsError> {
        let since = usize::try_from(self.count - count).unwrap_or(usize::MAX);
        let refuses = |error: &KmsError, context| error.refuses(data_key.key_id(), data_key.context(), context);
        self.keys.iter().rev().take(since).find_map(|(error, context)| refuses(error, context).then_some(error))
    }

    /// A provider does not take a wrapped key.
    pub fn note_wrapped(&mut self, wrapped: &WrappedKey, context: &EncryptionContext, error: &KmsError, now: Instant) {
        // The key file of the local provider is asked at no cost, and may be another one by now.
        if error.kind == KmsErrorKind::WrappedKeyRejected && wrapped.provider == Provider::AwsKms {
            self.wrapped_keys.put(name(wrapped, context), (now, error.clone()));
            while self.wrapped_keys.len() > MAX_WRAPPED_KEYS.get() {
                self.wrapped_keys.pop_lru();
            }
        }
    }

    /// What the provider said about a wrapped key, if it did not take it lately.
    pub fn of_wrapped(&mut self, wrapped: &WrappedKey, context: &EncryptionContext, now: Instant) -> Option<KmsError> {
        if self.wrapped_keys.is_empty() {
            return None;
        }
        let name = name(wrapped, context);
        let (since, error) = self.wrapped_keys.get(&name)?;
        if now.saturating_duration_since(*since) < REMEMBERED_FOR {
            return Some(error.clone());
        }
        self.wrapped_keys.pop(&name);
        None
    }

    /// Forgets the wrapped keys: somebody wants it all asked again.
    pub fn clear(&mut self) {
        self.wrapped_keys.clear();
    }
}

fn name(wrapped: &WrappedKey, context: &EncryptionContext) -> Name {
    let WrappedKey { provider, key_id, wrapped_dek } = wrapped;
    let provider = match provider {
        Provider::AwsKms => 1,
        Provider::Local => 2,
    };
    let mut hash = Context::new(&SHA256);
    for part in [&[provider], key_id.as_bytes(), wrapped_dek, context.as_bytes()] {
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}
