//! The SDK's clients, one per region, each made at its first use.

use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::Region;
use parking_lot::Mutex;

use super::Settings;
use crate::kms::KmsErrorKind;

/// Clients by region; `None` is the region of the SDK's standard chain.
pub(super) struct Clients {
    settings: Settings,
    /// Held only to look up and to add, never over an await.
    clients: Mutex<Vec<(Option<String>, Client)>>,
}

impl Clients {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, clients: Mutex::new(Vec::new()) }
    }

    /// The client of a region, or of the region of the settings.
    pub(super) async fn client(&self, region: Option<&str>) -> Result<Client, KmsErrorKind> {
        let region = region.or(self.settings.region.as_deref());
        let known = |(known, _): &&(Option<String>, Client)| known.as_deref() == region;
        if let Some((_, client)) = self.clients.lock().iter().find(known) {
            return Ok(client.clone());
        }
        let mut loader = aws_config::defaults(BehaviorVersion::latest());
        if let Some(region) = region {
            loader = loader.region(Region::new(region.to_owned()));
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
        let client = Client::new(&config);
        self.clients.lock().push((region.map(str::to_owned), client.clone()));
        Ok(client)
    }
}
