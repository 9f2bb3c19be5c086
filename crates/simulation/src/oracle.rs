//! The invariants, checked from outside: what a session was told, and what it then does with a data key.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use envelope_core::context::EncryptionContext;
use envelope_core::policy::{BLIND_TIME, Epochs};
use envelope_core::request::KmsError;

use crate::clock::TICK;

/// The last time that a session was handed a data key out.
#[derive(Clone, Copy)]
pub struct Granted {
    /// When the provider gave its consent.
    pub given: Instant,
    /// When the session asked.
    pub asked: Instant,
    /// What everybody had been told when it asked.
    pub epochs: Epochs,
    pub by_broker: bool,
}

/// A key was refused to a session.
struct Refused {
    error: KmsError,
    context: EncryptionContext,
    /// The session had asked then.
    asked: Instant,
    by_broker: bool,
}

/// What a session was told.
#[derive(Default)]
pub struct Oracle {
    told: HashMap<u64, Granted>,
    refused: Vec<Refused>,
    last_outage: Option<Instant>,
}

/// When a value was begun, and what everybody had been told then.
#[derive(Clone, Copy)]
pub struct Begun {
    pub at: Instant,
    pub epochs: Epochs,
}

/// A use of a data key.
pub struct Use<'a> {
    pub number: u64,
    pub key_id: &'a str,
    pub context: &'a EncryptionContext,
    pub seals: bool,
    /// The data key was asked for because of this value.
    pub was_asked: bool,
    pub now: Instant,
    pub epochs: Epochs,
    /// Since when the session cannot see the epochs, if so.
    pub is_blind: bool,
    pub ttl: Duration,
    pub stale_for: Duration,
    pub begun: Begun,
}

impl Oracle {
    pub fn told(&mut self, number: u64, told: Granted) {
        self.told.insert(number, told);
    }

    pub fn outage(&mut self, at: Instant) {
        self.last_outage = Some(at);
    }

    pub fn refused(&mut self, error: &KmsError, context: &EncryptionContext, asked: Instant, by_broker: bool) {
        if error.is_refusal_of_key() {
            self.refused.push(Refused { error: error.clone(), context: context.clone(), asked, by_broker });
        }
    }

    /// Whether a use is stale; what is wrong with it.
    pub fn check(&mut self, usage: &Use<'_>) -> Result<bool, String> {
        let Some(told) = self.told.get(&usage.number) else {
            return Err(format!("data key {} was never handed out to the session", usage.number));
        };
        let is_direct = usage.was_asked && told.asked >= usage.begun.at;
        let refusal = self.refused.iter().find(|refused| {
            refused.error.key_id == usage.key_id
                && (!refused.error.is_denial() || refused.context == *usage.context)
                && refused.by_broker == told.by_broker
                && refused.asked > told.asked
                && refused.asked > told.given
        });
        if let Some(refusal) = refusal {
            return Err(format!("data key {} serves after a refusal: {}", usage.number, refusal.error));
        }
        if usage.was_asked {
            // What was asked for before a flush is good for the value at hand.
            if told.epochs.flushes < usage.begun.epochs.flushes {
                return Err("a flush was not heeded before the next value".into());
            }
        } else {
            if usage.is_blind {
                if usage.now.saturating_duration_since(told.asked) > BLIND_TIME {
                    return Err("a session that cannot see flushes keeps a data key for long".into());
                }
            } else {
                if told.epochs.flushes != usage.epochs.flushes {
                    return Err("a flush was not heeded before the next value".into());
                }
                if usage.seals && told.epochs.replacements != usage.epochs.replacements {
                    return Err("a replacement was not heeded before the next value".into());
                }
            }
        }
        let age = usage.now.saturating_duration_since(told.given);
        // Whoever waited for the answer may use it, however long it took. What is fresh is told by the coarse clock, and only that.
        let is_fresh = age < usage.ttl + TICK || (is_direct && told.given >= usage.begun.at);
        if !is_fresh {
            if age >= usage.ttl + usage.stale_for {
                return Err(format!("a data key serves {age:?} after consent, past ttl and stale time"));
            }
            if self.last_outage.is_none_or(|outage| outage + Duration::from_secs(75) < usage.now) {
                return Err("a data key serves stale without an outage".into());
            }
        }
        Ok(!is_fresh)
    }

    /// Forgets refusals that nothing from before can be served after.
    pub fn prune(&mut self, before: Instant) {
        self.refused.retain(|refused| refused.asked >= before);
        self.told.retain(|_, told| told.given >= before);
    }
}
