//! What the policy sees of the backend.

use std::time::{Duration, Instant};

use envelope_core::allowed_keys::AllowedKeys;
use envelope_core::cache::Limits;
use envelope_core::policy::StatementId;
use envelope_core::policy::{Epochs, Surroundings};

use super::known_keys;
use crate::ask::shared_counters;
use crate::pg::{backend, clock, settings};

/// This backend, now.
pub struct Here;

impl Surroundings for Here {
    fn now(&self) -> Instant {
        Instant::now()
    }

    #[inline]
    fn coarse_now(&self) -> Instant {
        clock::now()
    }

    #[inline]
    fn epochs(&self) -> Option<Epochs> {
        shared_counters::epochs()
    }

    #[inline]
    fn ttl(&self) -> Duration {
        settings::cache_ttl()
    }

    fn own_ttl(&self, key_id: &str) -> Option<Duration> {
        known_keys::own_ttl(key_id)
    }

    #[inline]
    fn limits(&self) -> Limits {
        settings::limits()
    }

    fn call_timeout(&self) -> Duration {
        settings::kms_timeout()
    }

    #[inline]
    fn allowed_keys_generation(&self) -> u64 {
        settings::allowed_keys_generation()
    }

    fn allowed_keys(&self) -> AllowedKeys {
        settings::allowed_keys()
    }

    fn max_calls(&self) -> Option<u64> {
        settings::max_kms_calls_per_statement()
    }

    fn may_look_ahead(&self) -> bool {
        settings::look_ahead()
    }

    fn statement(&self) -> StatementId {
        let (statement, transaction) = backend::statement_and_transaction_start();
        StatementId { statement, transaction }
    }
}
