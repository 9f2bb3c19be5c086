//! Wrapped keys that their provider did not take lately, or that open to another data key than a value says. Whoever can store a
//! value can make one, and each would be a call again with each read (RFC 2308 does the same with names).

use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256};
use lru::LruCache;

use crate::context::EncryptionContext;
use crate::keys::{Commitment, Provider, WrappedKey};
use crate::request::{KmsError, KmsErrorKind, Operation};

/// How long such a wrapped key is not asked about again.
pub const REMEMBERED_FOR: Duration = Duration::from_secs(10);

/// A wrapped key and its encryption context, by their hash.
type Name = [u8; 32];

enum Known {
    /// The provider did not take it.
    Refused(Box<KmsError>),
    /// What it opens to, when the provider was asked, and whether two answers say so: one may have been wrong.
    OpensTo(Commitment, Instant, bool),
}

/// Wrapped keys that are not asked about for a while, a bounded number of them, the least recently used go first.
pub struct RefusedWrappedKeys {
    known: LruCache<Name, (Instant, Known)>,
    max_entries: usize,
}

impl RefusedWrappedKeys {
    /// None. Each takes some 400 bytes, whatever the size of the wrapped key.
    #[must_use]
    pub fn new(max_entries: usize) -> Self {
        Self { known: LruCache::unbounded(), max_entries }
    }

    /// A provider has not unwrapped a data key. Remembered if it said itself that it is because of the wrapped key.
    pub fn refused(&mut self, wrapped: &WrappedKey, context: &EncryptionContext, error: &KmsError, now: Instant) {
        // The key file of the local provider is asked at no cost, and may be another one by now.
        let is_lasting = error.kind == KmsErrorKind::WrappedKeyRejected && wrapped.provider == Provider::AwsKms;
        if is_lasting && error.metadata.code.is_some() {
            self.put(name(wrapped, context), now, Known::Refused(Box::new(error.clone())));
        }
    }

    /// A provider that was asked at `asked` has unwrapped a data key, and a value commits to another one, or did. Remembered if two
    /// answers agree.
    pub fn opens_to(&mut self, wrapped: &WrappedKey, context: &EncryptionContext, opened: Commitment, asked: Instant) {
        if wrapped.provider == Provider::AwsKms {
            let name = name(wrapped, context);
            let is_certain = match self.known.peek(&name) {
                Some((since, Known::OpensTo(before, before_asked, is_certain))) if *before == opened => {
                    is_remembered(*since, asked) && (*is_certain || *before_asked != asked)
                }
                _ => false,
            };
            self.put(name, asked, Known::OpensTo(opened, asked, is_certain));
        }
    }

    /// Why a wrapped key need not be asked about for a value that commits to this data key, if so.
    pub fn find(
        &mut self,
        wrapped: &WrappedKey,
        context: &EncryptionContext,
        commitment: Option<Commitment>,
        now: Instant,
    ) -> Option<KmsError> {
        if self.known.is_empty() {
            return None;
        }
        let name = name(wrapped, context);
        let (since, known) = self.known.get(&name)?;
        if !is_remembered(*since, now) {
            self.known.pop(&name);
            return None;
        }
        match known {
            Known::Refused(error) => Some(KmsError { calls: 0, ..(**error).clone() }),
            Known::OpensTo(opened, _, true) if commitment.is_some_and(|commitment| commitment != *opened) => {
                let error = KmsError::new(KmsErrorKind::WrappedKeyRejected, Operation::Decrypt, &wrapped.key_id);
                Some(KmsError { calls: 0, ..error })
            }
            Known::OpensTo(..) => None,
        }
    }

    /// Forgets all: somebody wants it all asked again.
    pub fn clear(&mut self) {
        self.known.clear();
    }

    fn put(&mut self, name: Name, now: Instant, known: Known) {
        self.known.put(name, (now, known));
        while self.known.len() > self.max_entries {
            self.known.pop_lru();
        }
    }
}

fn is_remembered(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) < REMEMBERED_FOR
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

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "arn:aws:kms:us-west-2:111122223333:key/715c0818-5825-4245-a755-138a6d9a11e6";

    fn wrapped(number: u8) -> WrappedKey {
        WrappedKey { provider: Provider::AwsKms, key_id: KEY.into(), wrapped_dek: vec![number; 184] }
    }

    fn commitment(number: u8) -> Option<Commitment> {
        Some(Commitment([number; 32]))
    }

    #[test]
    fn what_the_provider_does_not_take_is_not_asked_about_for_a_while() {
        let (mut refused, context, start) = (RefusedWrappedKeys::new(2), EncryptionContext::default(), Instant::now());
        let mut error = KmsError::new(KmsErrorKind::WrappedKeyRejected, Operation::Decrypt, KEY);
        refused.refused(&wrapped(1), &context, &error, start);
        assert!(refused.find(&wrapped(1), &context, None, start).is_none(), "nobody but us has said so");
        error.metadata.code = Some("InvalidCiphertextException".into());
        refused.refused(&wrapped(1), &context, &error, start);
        assert_eq!(refused.find(&wrapped(1), &context, None, start), Some(KmsError { calls: 0, ..error.clone() }));
        assert!(refused.find(&wrapped(2), &context, None, start).is_none());
        let other = EncryptionContext::from_json(r#"{"a": "b"}"#).unwrap();
        assert!(refused.find(&wrapped(1), &other, None, start).is_none());
        assert!(refused.find(&wrapped(1), &context, None, start + REMEMBERED_FOR).is_none());
        for number in 1..=3 {
            refused.refused(&wrapped(number), &context, &error, start);
        }
        assert!(refused.find(&wrapped(1), &context, None, start).is_none(), "there is room for two");
        assert!(refused.find(&wrapped(3), &context, None, start).is_some());
        refused.clear();
        assert!(refused.find(&wrapped(3), &context, None, start).is_none());
    }

    /// Whoever can store a value can give the wrapped key of a good one with another commitment.
    #[test]
    fn a_wrapped_key_that_opens_to_another_data_key_stays_good_for_its_own() {
        let (mut refused, context, now) = (RefusedWrappedKeys::new(9), EncryptionContext::default(), Instant::now());
        let mut opens_to = |number, asked| refused.opens_to(&wrapped(1), &context, Commitment([number; 32]), asked);
        let later = |seconds| now + Duration::from_secs(seconds);
        opens_to(7, now);
        opens_to(7, now);
        opens_to(8, later(1));
        assert!(
            refused.find(&wrapped(1), &context, commitment(9), now).is_none(),
            "one answer, and one that contradicts"
        );
        refused.opens_to(&wrapped(1), &context, Commitment([8; 32]), later(2));
        let now = later(2);
        let error = refused.find(&wrapped(1), &context, commitment(9), now).expect("two say so");
        assert_eq!((error.kind, error.calls), (KmsErrorKind::WrappedKeyRejected, 0));
        assert!(refused.find(&wrapped(1), &context, commitment(8), now).is_none(), "its own");
        assert!(refused.find(&wrapped(1), &context, None, now).is_none());
        assert!(refused.find(&wrapped(1), &context, commitment(9), now + REMEMBERED_FOR).is_none());
    }
}
