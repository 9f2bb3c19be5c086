//! What aliases stood for, as this session has heard from KMS or the broker: it goes with each request under an alias, since a
//! broker that was started in a region's outage cannot ask.

use std::time::Instant;

use envelope_core::keys::{KeyArn, KeyId};
use envelope_core::request::{Reply, Request};
use envelope_kms::Resolution;
use envelope_kms::aws::Settings;

use crate::ask::own_thread;
use crate::pg::settings;

/// What the alias of a request stood for.
pub fn resolution(request: &Request, settings: &Settings) -> Option<Resolution> {
    let alias = request.alias()?;
    forget_old();
    own_thread::aliases().resolution(settings, alias)
}

/// Notes what the alias of a request stood for when the data key of the reply was made. `asked` is when the request was sent.
pub fn learn(request: &Request, reply: &Reply, asked: Instant) {
    if let (Some(alias), Reply::Sealing(grant)) = (request.alias(), reply)
        && let Some(made) = asked.checked_sub(grant.age)
    {
        let settings = &settings::kms_settings().aws;
        if is_of_own_region(settings, alias, &grant.wrapped.key_id) {
            own_thread::aliases().learn(settings, alias, &grant.wrapped.key_id, made);
        }
    }
}

/// An alias may point elsewhere by now; so long its data keys seal new values, too.
pub fn forget_old() {
    own_thread::aliases().forget_older_than(settings::limits().max_age);
}

/// Whether a key is in the region of the alias, as far as that can be told: a replica, which answers in an outage, says nothing new
/// about the alias.
fn is_of_own_region(settings: &Settings, alias: &KeyId, key_arn: &str) -> bool {
    let Some(key) = KeyArn::parse(key_arn) else { return false };
    match (alias, &settings.region) {
        (KeyId::AwsArn { region, .. }, _) | (_, Some(region)) => key.region == region,
        (_, None) => !settings.failover_regions.iter().any(|region| region == key.region),
    }
}
