//! The SDK's clients, one per region, each made at its first use. Values name regions, so the number of clients is bounded.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::Region;
use envelope_core::request::KmsErrorKind;
use lru::LruCache;
use parking_lot::Mutex;

use super::retries::ByAnswer;
use super::{Settings, http};

/// More than a server uses at a time. A client takes about half a megabyte.
const MAX_CLIENTS: NonZeroUsize = NonZeroUsize::new(16).unwrap();

/// Credentials are not looked up anew sooner than this after the last time: their source may have no others.
const RENEWAL_PAUSE: Duration = Duration::from_secs(5);

/// Clients by region; `None` is the region of the SDK's standard chain.
pub(super) struct Clients {
    settings: Settings,
    /// Held only to look up and to add, never over an await.
    known: Mutex<Known>,
}

struct Known {
    clients: LruCache<Option<String>, Client>,
    /// How often the credentials were dropped.
    generation: u64,
    renewed: Option<Instant>,
}

impl Clients {
    pub(super) fn new(settings: Settings) -> Self {
        let known = Known { clients: LruCache::new(MAX_CLIENTS), generation: 0, renewed: None };
        Self { settings, known: Mutex::new(known) }
    }

    /// Has KMS refused the credentials of a client of this generation: whether there may be others now. The clients are made
    /// anew then, and with them the providers of credentials, since the SDK keeps credentials until they say that they expire.
    pub(super) fn renew_credentials(&self, generation: u64) -> bool {
        let mut known = self.known.lock();
        if known.generation != generation {
            return true;
        }
        if known.renewed.is_some_and(|renewed| renewed.elapsed() < RENEWAL_PAUSE) {
            return false;
        }
        known.renewed = Some(Instant::now());
        known.generation += 1;
        known.clients.clear();
        true
    }

    /// The client of a region, or of the region of the settings, and the generation of its credentials.
    pub(super) async fn client(&self, region: Option<&str>) -> Result<(Client, u64), KmsErrorKind> {
        let region = region.map(str::to_owned).or_else(|| self.settings.region.clone());
        let generation = {
            let mut known = self.known.lock();
            if let Some(client) = known.clients.get(&region) {
                return Ok((client.clone(), known.generation));
            }
            known.generation
        };
        let http_client = http::client(self.settings.profile.as_deref()).await.map_err(KmsErrorKind::Unreachable)?;
        let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http_client);
        if let Some(region) = &region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(profile) = &self.settings.profile {
            loader = loader.profile_name(profile);
        }
        if let Some(url) = &self.settings.endpoint_url {
            loader = loader.endpoint_url(url);
        }
        // An attempt that hangs leaves time for the next one, on a new connection, and for the other regions.
        let regions = 1 + u32::try_from(self.settings.failover_regions.len()).unwrap_or(u32::MAX - 1);
        let attempts = self.settings.max_attempts.saturating_mul(regions);
        let timeouts = TimeoutConfig::builder()
            .operation_timeout(self.settings.timeout)
            .operation_attempt_timeout(self.settings.timeout / attempts)
            .build();
        let retries = RetryConfig::standard().with_max_attempts(self.settings.max_attempts);
        let config = loader.timeout_config(timeouts).retry_config(retries).load().await;
        if config.region().is_none() {
            return Err(KmsErrorKind::NoRegion);
        }
        let config = aws_sdk_kms::config::Builder::from(&config).retry_classifier(ByAnswer).build();
        let client = Client::from_conf(config);
        let mut known = self.known.lock();
        if known.generation == generation {
            known.clients.put(region, client.clone());
        }
        Ok((client, generation))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn values_that_name_many_regions_do_not_add_up() {
        let timeout = Duration::from_secs(1);
        let clients = Clients::new(Settings {
            region: Some("us-west-2".into()),
            endpoint_url: Some("http://127.0.0.1:1".into()),
            profile: None,
            timeout,
            max_attempts: 1,
            max_calls_per_second: None,
            failover_regions: Vec::new(),
        });
        for number in 0..40 {
            clients.client(Some(&format!("region-{number}"))).await.unwrap();
            clients.client(None).await.unwrap();
        }
        let known = clients.known.lock();
        assert_eq!(known.clients.len(), MAX_CLIENTS.get());
        assert!(known.clients.contains(&Some("us-west-2".into())), "what is in use stays");
    }
}
