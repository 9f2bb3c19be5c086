//! What the administrator sets of AWS KMS.

use std::num::NonZeroU32;
use std::time::Duration;

/// The administrator's settings for AWS KMS. What is `None` comes from the SDK's standard chain.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Settings {
    /// Region for keys that are not named by ARN.
    pub region: Option<String>,
    /// Another endpoint than AWS's own: a VPC endpoint, or an emulator.
    pub endpoint_url: Option<String>,
    /// Profile of the AWS configuration files.
    pub profile: Option<String>,
    /// Limit on one whole call: credentials, connection, retries and fail-over included.
    pub timeout: Duration,
    /// How often one call is tried in each region, the first time included.
    pub max_attempts: u32,
    /// How many calls the server makes in a second; `None`: any number.
    pub max_calls_per_second: Option<NonZeroU32>,
    /// Where to turn with multi-Region keys when their own region is unreachable, in this order.
    pub failover_regions: Vec<String>,
}
