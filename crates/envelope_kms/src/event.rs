//! What an administrator wants to see in the server's log. Collected by the providers, written by the shell.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

/// More than this is of no use to a reader; the newest are dropped.
const MAX_WAITING: usize = 64;

/// A change of state that is worth a line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// A circuit breaker opened: what it is for, and the error that opened it.
    OutageBegan {
        /// Such as `region us-west-2`.
        scope: String,
        /// The error.
        error: String,
    },
    /// A circuit breaker closed: what it is for, and how long it had been open.
    OutageEnded {
        /// Such as `region us-west-2`.
        scope: String,
        /// Since it opened.
        lasted: Duration,
    },
    /// An answer is not what KMS promises, so that it is not trusted.
    Untrusted {
        /// The key that was named.
        key_id: String,
        /// What is wrong with it.
        reason: String,
        /// Who sent it.
        host: String,
    },
    /// A call went to a fail-over region.
    FailedOver {
        /// The key that was named.
        key_id: String,
        /// The region that answered.
        region: String,
    },
    /// Data keys that the broker had dropped to make room were needed again: so many since the last report.
    BrokerMemoryShort {
        /// How many.
        needed_again: u64,
    },
}

/// Events that wait to be written.
#[derive(Clone, Debug, Default)]
pub struct Events(Arc<Mutex<VecDeque<Event>>>);

impl Events {
    /// Adds one.
    pub fn add(&self, event: Event) {
        let mut waiting = self.0.lock();
        if waiting.len() < MAX_WAITING {
            waiting.push_back(event);
        }
    }

    /// Takes the oldest.
    #[must_use]
    pub fn take(&self) -> Option<Event> {
        self.0.lock().pop_front()
    }
}
