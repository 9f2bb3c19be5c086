//! What a session asks about data keys, in one type for both ways to ask: a thread of its own, or the server's broker.
//!
//! - [`error`]: why it was not done

pub mod error;

use std::borrow::Cow;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::context::EncryptionContext;
use crate::keys::{Commitment, Dek, KeyId, WrappedKey};
pub use error::{Endpoint, ErrorMetadata, KmsError, KmsErrorKind, Operation};

/// What a session asks.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Request {
    /// The data key that seals new values under a key and an encryption context.
    SealingKey {
        /// The key, as the statement names it.
        key_id: KeyId,
        /// The encryption context.
        context: EncryptionContext,
        /// How old the provider's consent may be.
        terms: Terms,
        /// How long and how much one data key seals.
        limits: SealingLimits,
    },
    /// A new data key in the place of the current one.
    ReplaceDek {
        /// The key, as the statement names it.
        key_id: KeyId,
        /// The encryption context.
        context: EncryptionContext,
    },
    /// The plaintext of a data key that a value carries.
    OpeningKey {
        /// The data key.
        wrapped: WrappedKey,
        /// The encryption context that belongs to it.
        context: EncryptionContext,
        /// What the value commits to, if the data key is for a value: another data key is not handed out.
        commitment: Option<Commitment>,
        /// How old the provider's consent may be.
        terms: Terms,
    },
    /// A data key wrapped under another key of its provider.
    Rewrap {
        /// The data key.
        wrapped: WrappedKey,
        /// The encryption context that belongs to it.
        context: EncryptionContext,
        /// The other key.
        to: KeyId,
    },
}

impl Request {
    /// The encryption context that it is about.
    #[must_use]
    pub fn context(&self) -> &EncryptionContext {
        match self {
            Self::SealingKey { context, .. }
            | Self::ReplaceDek { context, .. }
            | Self::OpeningKey { context, .. }
            | Self::Rewrap { context, .. } => context,
        }
    }

    /// The key that it is about: as the statement names it, if it is to seal new values.
    #[must_use]
    pub fn key_id(&self) -> Cow<'_, str> {
        match self {
            Self::SealingKey { key_id, .. } | Self::ReplaceDek { key_id, .. } => Cow::Owned(key_id.to_string()),
            Self::OpeningKey { wrapped, .. } | Self::Rewrap { wrapped, .. } => Cow::Borrowed(&wrapped.key_id),
        }
    }

    /// The alias that a data key is to be made under, if it is one.
    #[must_use]
    pub fn alias(&self) -> Option<&KeyId> {
        match self {
            Self::SealingKey { key_id, .. } | Self::ReplaceDek { key_id, .. } => {
                Some(key_id).filter(|id| id.is_alias())
            }
            Self::OpeningKey { .. } | Self::Rewrap { .. } => None,
        }
    }

    /// The same request, content with something else.
    #[must_use]
    pub fn under(mut self, other: Terms) -> Self {
        if let Self::SealingKey { terms, .. } | Self::OpeningKey { terms, .. } = &mut self {
            *terms = other;
        }
        self
    }

    /// What a session that asks for a data key is content with.
    #[must_use]
    pub fn terms(&self) -> Option<&Terms> {
        match self {
            Self::SealingKey { terms, .. } | Self::OpeningKey { terms, .. } => Some(terms),
            Self::ReplaceDek { .. } | Self::Rewrap { .. } => None,
        }
    }
}

/// Which calls to its provider the answer may take.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Calls {
    /// Those that it needs, and those that the session is about to need.
    Ahead,
    /// One that it needs. Whoever needs another one, and has one left, asks again.
    Needed,
    /// None: the statement may cause no more of them.
    None,
}

/// How long ago the provider may have handed a data key out: its consent to the use.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Terms {
    /// In the ordinary case.
    pub fresh_for: Duration,
    /// While the provider is unreachable or throttles.
    pub stale_for: Duration,
    /// Which calls to the provider the answer may take.
    pub calls: Calls,
    /// No value needs it yet: the statement is about to read one that does.
    pub is_ahead: bool,
}

/// How long and how much one data key seals new values.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SealingLimits {
    /// Time since it was made.
    pub max_age: Duration,
    /// Values; `None`: any number.
    pub max_uses: Option<u64>,
    /// Plaintext bytes; `None`: any number.
    pub max_bytes: Option<u64>,
    /// Plaintext bytes of the value that needs it now.
    pub wanted_bytes: u64,
}

/// The answer to a [`Request`].
pub enum Reply {
    /// To [`Request::SealingKey`] and [`Request::ReplaceDek`].
    Sealing(SealingGrant),
    /// To [`Request::OpeningKey`].
    Opening(OpeningGrant),
    /// To [`Request::Rewrap`].
    Rewrapped(WrappedKey),
}

impl Reply {
    /// Whether the provider could not be asked, so that a data key serves past its time.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        match self {
            Self::Sealing(grant) => grant.consent.is_stale,
            Self::Opening(grant) => grant.consent.is_stale,
            Self::Rewrapped(_) => false,
        }
    }

    /// Whether it took a call to a provider.
    #[must_use]
    pub fn took_call(&self) -> bool {
        self.consent().is_none_or(|consent| consent.took_call)
    }

    /// How many calls to providers were begun because of the request.
    #[must_use]
    pub fn calls(&self) -> u32 {
        self.consent().map_or(1, |consent| consent.calls)
    }

    /// So many calls to providers were begun because of the request.
    pub fn count_calls(&mut self, calls: u32) {
        match self {
            Self::Sealing(SealingGrant { consent, .. }) | Self::Opening(OpeningGrant { consent, .. }) => {
                consent.calls = calls;
            }
            Self::Rewrapped(_) => {}
        }
    }

    /// The provider's consent to the use of the data key that is handed out.
    #[must_use]
    pub fn consent(&self) -> Option<&ConsentAge> {
        match self {
            Self::Sealing(grant) => Some(&grant.consent),
            Self::Opening(grant) => Some(&grant.consent),
            Self::Rewrapped(_) => None,
        }
    }
}

/// The part of a data key's limits that one session may use; `None`: any amount.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Lease {
    /// Values.
    pub uses: Option<u64>,
    /// Plaintext bytes.
    pub bytes: Option<u64>,
}

/// A data key that seals new values.
pub struct SealingGrant {
    /// The plaintext.
    pub dek: Dek,
    /// The same, wrapped.
    pub wrapped: WrappedKey,
    /// How long before the request it was made; zero if it was made for it.
    pub age: Duration,
    /// What the session may use of its limits before it has to ask again.
    pub lease: Lease,
    /// Since when it may be used.
    pub consent: ConsentAge,
}

/// A data key that opens values.
pub struct OpeningGrant {
    /// The plaintext.
    pub dek: Dek,
    /// The key that wrapped it, as the provider confirmed it.
    pub key_id: String,
    /// Since when it may be used.
    pub consent: ConsentAge,
}

/// How the provider's consent stands.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ConsentAge {
    /// How long before the request the provider was asked; zero if it was asked because of it.
    pub age: Duration,
    /// It could not be asked again just now.
    pub is_stale: bool,
    /// Whether the answer took a call to the provider, perhaps one that somebody else had begun.
    pub took_call: bool,
    /// How many calls to providers were begun because of the request: what the answer took, and what the session or another one
    /// is about to need.
    pub calls: u32,
}

impl ConsentAge {
    /// The provider was asked because of the request.
    pub const JUST_GIVEN: Self = Self { age: Duration::ZERO, is_stale: false, took_call: true, calls: 1 };

    /// When the consent was given, for a session that has asked at `asked`: never later than it was, however long the answer
    /// has been there when the session takes it up.
    #[must_use]
    pub fn given_at(&self, asked: Instant) -> Instant {
        asked.checked_sub(self.age).unwrap_or(asked)
    }
}
