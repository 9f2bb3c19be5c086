//! Keys that were refused lately: an answer that was asked for before the refusal and comes after it is not kept.

use std::collections::VecDeque;

use crate::context::EncryptionContext;
use crate::request::KmsError;
use crate::value::DataKey;

/// Refusals of keys that are remembered: more than a session has requests under way.
const MAX_KEYS: usize = 64;

/// What was refused lately.
#[derive(Default)]
pub struct Refusals {
    /// The last ones, and the encryption context that they came with.
    keys: VecDeque<(KmsError, EncryptionContext)>,
    /// Of all refusals of keys.
    count: u64,
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
}
