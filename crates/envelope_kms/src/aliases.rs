//! Which key an alias stood for when KMS last said so. An alias is of one region: while that is out of reach, this is what finds
//! the replicas of its key, if that is a multi-Region key.
//!
//! Only what KMS has answered in the alias's own region is remembered, never what a value says: who can write values must not
//! choose the key of the next ones.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use envelope_core::keys::{KeyArn, KeyId};
use lru::LruCache;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::aws_settings::Settings;

/// Statements name aliases, so their number is bounded; the least recently used go first.
const MAX_ALIASES: NonZeroUsize = NonZeroUsize::new(1_024).unwrap();

/// The aliases that were resolved lately. A clone shares them.
#[derive(Clone)]
pub struct Aliases(Arc<Mutex<LruCache<Name, Known>>>);

/// An alias, and where it is looked up: region, endpoint and profile of the settings.
#[derive(Clone, Eq, Hash, PartialEq)]
struct Name {
    alias: KeyId,
    region: Option<String>,
    endpoint_url: Option<String>,
    profile: Option<String>,
}

struct Known {
    key_arn: String,
    resolved: Instant,
}

/// What an alias stood for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Resolution {
    /// The key ARN.
    pub key_arn: String,
    /// How long ago.
    pub age: Duration,
}

impl Aliases {
    /// Notes what an alias stood for at `resolved`, unless something later is known. Nothing else than an alias is noted, nor a key
    /// of another account or region than its own.
    pub fn learn(&self, settings: &Settings, alias: &KeyId, key_arn: &str, resolved: Instant) {
        if !may_stand_for(alias, key_arn) {
            return;
        }
        let mut known = self.0.lock();
        let name = Name::new(settings, alias);
        if known.get(&name).is_none_or(|known| known.resolved < resolved) {
            known.put(name, Known { key_arn: key_arn.to_owned(), resolved });
        }
    }

    /// What an alias stood for.
    #[must_use]
    pub fn resolution(&self, settings: &Settings, alias: &KeyId) -> Option<Resolution> {
        if !alias.is_alias() {
            return None;
        }
        let mut known = self.0.lock();
        let Known { key_arn, resolved } = known.get(&Name::new(settings, alias))?;
        Some(Resolution { key_arn: key_arn.clone(), age: resolved.elapsed() })
    }

    /// Forgets what is older than this: as long as a data key seals new values, since those of an alias that points elsewhere by
    /// now do so, too.
    pub fn forget_older_than(&self, max_age: Duration) {
        let mut known = self.0.lock();
        let old = known.iter().filter(|(_, known)| known.resolved.elapsed() >= max_age);
        let old: Vec<Name> = old.map(|(name, _)| name.clone()).collect();
        for name in old {
            known.pop(&name);
        }
    }
}

impl Default for Aliases {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(LruCache::new(MAX_ALIASES))))
    }
}

impl Name {
    fn new(settings: &Settings, alias: &KeyId) -> Self {
        let Settings { region, endpoint_url, profile, .. } = settings.clone();
        Self { alias: alias.clone(), region, endpoint_url, profile }
    }
}

/// Whether an alias can point to a key: to any of its account and region, which `alias/name` leaves open.
fn may_stand_for(alias: &KeyId, key_arn: &str) -> bool {
    let Some(key) = KeyArn::parse(key_arn).filter(|arn| arn.key().is_some()) else { return false };
    match alias {
        KeyId::AwsArn { arn, .. } => KeyArn::parse(arn).is_some_and(|alias| {
            alias.key().is_none()
                && (alias.partition, alias.account, alias.region) == (key.partition, key.account, key.region)
        }),
        _ => alias.is_alias(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "arn:aws:kms:us-west-2:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab";
    const OTHER: &str = "arn:aws:kms:us-west-2:111122223333:key/715c0818-5825-4245-a755-138a6d9a11e6";

    fn settings(region: &str) -> Settings {
        Settings {
            region: Some(region.into()),
            endpoint_url: None,
            profile: None,
            timeout: Duration::from_secs(1),
            max_attempts: 1,
            max_calls_per_second: None,
            failover_regions: Vec::new(),
        }
    }

    #[test]
    fn the_latest_answer_counts_for_as_long_as_it_may() {
        let (aliases, west, now) = (Aliases::default(), settings("us-west-2"), Instant::now());
        let alias = KeyId::parse("alias/app").unwrap();
        aliases.learn(&west, &alias, OTHER, now);
        aliases.learn(&west, &alias, KEY, now - Duration::from_secs(9));
        assert_eq!(aliases.resolution(&west, &alias).unwrap().key_arn, OTHER);
        assert_eq!(aliases.resolution(&settings("us-east-1"), &alias), None, "another region, another alias");
        aliases.forget_older_than(Duration::from_secs(3_600));
        assert!(aliases.resolution(&west, &alias).is_some());
        aliases.forget_older_than(Duration::ZERO);
        assert_eq!(aliases.resolution(&west, &alias), None);
    }

    #[test]
    fn only_aliases_stand_for_keys_and_only_for_their_neighbours() {
        let (aliases, west, now) = (Aliases::default(), settings("us-west-2"), Instant::now());
        for (named, key_arn) in [
            (OTHER, KEY),
            ("715c0818-5825-4245-a755-138a6d9a11e6", OTHER),
            ("local:dev", KEY),
            ("alias/app", "alias/app"),
            ("alias/app", "nonsense"),
            ("arn:aws:kms:eu-west-1:111122223333:alias/app", KEY),
            ("arn:aws:kms:us-west-2:999922223333:alias/app", KEY),
        ] {
            let named = KeyId::parse(named).unwrap();
            aliases.learn(&west, &named, key_arn, now);
            assert_eq!(aliases.resolution(&west, &named), None, "{named} {key_arn}");
        }
    }

    #[test]
    fn their_number_is_bounded() {
        let (aliases, west) = (Aliases::default(), settings("us-west-2"));
        for number in 0..2 * MAX_ALIASES.get() {
            aliases.learn(&west, &KeyId::parse(&format!("alias/{number}")).unwrap(), KEY, Instant::now());
        }
        assert_eq!(aliases.0.lock().len(), MAX_ALIASES.get());
    }
}
