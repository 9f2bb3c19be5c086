//! What a session sees of the world, and why a data key cannot be had in it.

use std::time::{Duration, Instant};

use thiserror::Error;

use crate::allowed_keys::AllowedKeys;
use crate::cache::Limits;
use crate::error::{ArgumentError, ValueError};
use crate::request::KmsError;

/// A session that cannot see the flushes of others keeps a data key for so long at most.
pub const BLIND_TIME: Duration = Duration::from_secs(1);

/// How often all processes of the server were told to drop their data keys, and to replace the current ones. Only goes up.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Epochs {
    /// Flushes of all data keys.
    pub flushes: u64,
    /// Replacements of current data keys.
    pub replacements: u64,
}

/// What a session sees of the world, at the moment when it asks.
pub trait Surroundings {
    /// The time.
    fn now(&self) -> Instant;
    /// The time, some milliseconds late: read for each value.
    fn coarse_now(&self) -> Instant;
    /// What all processes were told up to now; `None`: that cannot be seen.
    fn epochs(&self) -> Option<Epochs>;
    /// [`Limits::ttl`] alone: read for each value.
    fn ttl(&self) -> Duration;
    /// The time that a key has of its own in place of that, by key ARN or `local:name`; `None`: none.
    fn own_ttl(&self, _key_id: &str) -> Option<Duration> {
        None
    }
    /// How long and how much a data key may be used.
    fn limits(&self) -> Limits;
    /// The time limit of a call to a provider.
    fn call_timeout(&self) -> Duration;
    /// Changes whenever [`Self::allowed_keys`] may have.
    fn allowed_keys_generation(&self) -> u64;
    /// The keys that may be used.
    fn allowed_keys(&self) -> AllowedKeys;
    /// How many calls one statement may make; `None`: any number.
    fn max_calls(&self) -> Option<u64>;
    /// Whether data keys may be asked for before a value needs them.
    fn may_look_ahead(&self) -> bool {
        true
    }
    /// The statement and the transaction that run.
    fn statement(&self) -> StatementId;
}

/// Why a data key cannot be had.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum PolicyError {
    /// What is wrong with the value.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// What is wrong with the key id.
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    /// What the provider said.
    #[error(transparent)]
    Kms(#[from] KmsError),
    /// The key is not in the list.
    #[error("key is not allowed")]
    KeyNotAllowed(String),
    /// The limit of calls for a statement.
    #[error("the statement needs more calls to key providers than it may make")]
    TooManyCalls(u64),
}

/// A statement and its transaction, each by when it began.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct StatementId {
    /// The statement.
    pub statement: i64,
    /// The transaction.
    pub transaction: i64,
}

/// When something was asked for, and what the session had been told by then.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub(super) at: Instant,
    pub(super) epochs: Option<Epochs>,
    pub(super) refusals: u64,
    /// The statement that the calls count to.
    pub(super) statement: StatementId,
}

impl Asked {
    /// When.
    #[must_use]
    pub fn at(&self) -> Instant {
        self.at
    }

    pub(super) fn flushes(&self) -> Option<u64> {
        self.epochs.map(|epochs| epochs.flushes)
    }
}
