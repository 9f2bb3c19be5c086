//! One call to AWS KMS: its time limit, the circuit breakers, the fail-over regions.
//!
//! A call that gets no answer opens the breaker of its region; one that KMS answers with a fault or with throttling opens
//! the breaker of its key in that region. While a breaker is open such calls fail at once with the error that opened it.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use aws_config::retry::RetryConfig;
use aws_sdk_kms::Client;
use aws_sdk_kms::types::KeyState;
use envelope_core::keys::{KeyArn, KeyId};
use envelope_core::request::{Endpoint, KmsError, KmsErrorKind, Operation};
use lru::LruCache;
use parking_lot::Mutex;

use super::Settings;
use super::attempts::Attempts;
use super::client::Clients;
use super::failure::Failure;
use crate::breaker::{Breaker, Permit};
use crate::event::Event;
use crate::lasting::Lasting;

/// DescribeKey is asked once, and its answer waited for no longer than this.
const DESCRIBE_KEY_TIME: Duration = Duration::from_secs(1);

/// KMS answers in a tenth of this. A call that was given up after so long, because the statement was cancelled, has failed.
const GIVEN_UP_IN_VAIN: Duration = Duration::from_secs(1);

/// Breakers that are open at the same time. Values name keys and regions, so it is not up to the administrator how many there
/// are; without its breaker a call is made in vain.
const MAX_BREAKERS: NonZeroUsize = NonZeroUsize::new(1_024).unwrap();

/// AWS KMS under some settings.
pub struct AwsKms {
    settings: Settings,
    clients: Clients,
    breakers: Mutex<Breakers>,
    lasting: Lasting,
}

type Breakers = LruCache<Scope, Breaker<Failure>>;

/// What a breaker is for. A region of `None` is that of the settings.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Scope {
    region: Option<String>,
    /// `None`: all keys of the region.
    key_id: Option<String>,
}

/// A key in a region.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Target {
    /// `None`: the region of the settings.
    pub(super) region: Option<String>,
    /// Names the key in that region.
    pub(super) key_id: KeyId,
    /// It is where the key was named, not a fail-over region.
    pub(super) is_own: bool,
}

/// What a call is made with.
pub(super) struct Attempt {
    pub(super) client: Client,
    /// Names the key in the client's region.
    pub(super) key_id: KeyId,
    /// As [`Target::is_own`].
    pub(super) is_own: bool,
    pub(super) attempts: Attempts,
}

impl AwsKms {
    /// Makes no connection yet.
    #[must_use]
    pub fn new(settings: Settings, lasting: Lasting) -> Self {
        let breakers = Mutex::new(LruCache::new(MAX_BREAKERS));
        Self { clients: Clients::new(settings.clone()), breakers, settings, lasting }
    }

    /// Where to find a key: in its own region, and a multi-Region key in the fail-over regions too.
    pub(super) fn targets(&self, key_id: &KeyId) -> Vec<Target> {
        let own = match key_id {
            KeyId::AwsArn { region, .. } => Some(region.clone()),
            KeyId::AwsName(_) | KeyId::Local(_) => None,
        };
        let mut targets = vec![Target { region: own.clone(), key_id: key_id.clone(), is_own: true }];
        let known = own.or_else(|| self.settings.region.clone());
        let named = self.in_other_regions(key_id);
        for region in self.settings.failover_regions.iter().filter(|region| known.as_ref() != Some(region)) {
            let replica = match &named {
                Some(KeyId::AwsArn { arn, .. }) => {
                    KeyArn::parse(arn).map(|arn| KeyId::AwsArn { region: region.clone(), arn: arn.in_region(region) })
                }
                named => named.clone(),
            };
            targets.extend(replica.map(|key_id| Target { region: Some(region.clone()), key_id, is_own: false }));
        }
        targets
    }

    /// What names the same key in other regions; `None`: it is in its own only. An alias that was not resolved lately may have a
    /// namesake there.
    fn in_other_regions(&self, key_id: &KeyId) -> Option<KeyId> {
        let resolution = self.lasting.aliases.resolution(&self.settings, key_id);
        let resolved = resolution.and_then(|resolution| KeyId::parse(&resolution.key_arn).ok());
        let named = resolved.as_ref().unwrap_or(key_id);
        let is_elsewhere = match named {
            KeyId::AwsArn { arn, .. } => {
                named.is_alias() || KeyArn::parse(arn).is_some_and(|arn| arn.is_multi_region())
            }
            KeyId::AwsName(name) => named.is_alias() || name.starts_with("mrk-"),
            KeyId::Local(_) => false,
        };
        is_elsewhere.then(|| named.clone())
    }

    /// Heeds the key that answered for the one that was named: what an alias stands for in its own region is remembered. Its
    /// namesake in another region is good for a multi-Region key only: values under another one could be read there alone.
    pub(super) fn heed_resolution(&self, attempt: &Attempt, key_arn: &str, asked: Instant) -> Result<(), KmsErrorKind> {
        if attempt.is_own {
            self.lasting.aliases.learn(&self.settings, &attempt.key_id, key_arn, asked);
        } else if attempt.key_id.is_alias() && !KeyArn::parse(key_arn).is_some_and(|arn| arn.is_multi_region()) {
            return Err(KmsErrorKind::NotFound);
        }
        Ok(())
    }

    /// How many breakers are open.
    pub(crate) fn open_breakers(&self) -> u64 {
        self.breakers.lock().len() as u64
    }

    /// Makes a call at the first of the targets that can be reached, all within the time limit.
    pub(super) async fn call<T>(
        &self,
        operation: Operation,
        targets: Vec<Target>,
        call: impl AsyncFn(Attempt) -> Result<T, Failure>,
    ) -> Result<T, KmsError> {
        let started = Instant::now();
        let deadline = started + self.settings.timeout;
        let named = targets[0].key_id.to_string();
        let counted = self.lasting.statistics.begin(operation, &named);
        let (mut made, mut throttled) = (0, 0);
        let mut first_failure: Option<(Failure, Attempts, Option<String>)> = None;
        let mut targets_left = targets.len() as u32;
        for target in targets {
            let share = deadline.saturating_duration_since(Instant::now()) / targets_left;
            targets_left -= 1;
            let attempts = Attempts::default();
            let result = self.call_target(&target, share, &call, &attempts).await;
            made += attempts.made();
            throttled += attempts.throttled();
            match result {
                Ok(value) => {
                    counted.end(made, throttled, None);
                    if first_failure.is_some() {
                        let region = target.region.unwrap_or_default();
                        self.lasting.events.add(Event::FailedOver { key_id: named.clone(), region });
                    }
                    return Ok(value);
                }
                // Only the key's own region says what is wrong with a key: a replica may not exist.
                Err(failure) => {
                    let (failure, ..) = first_failure.get_or_insert((failure, attempts, target.region));
                    if !failure.kind.is_unreachable() {
                        break;
                    }
                }
            }
        }
        let (Failure { kind, metadata }, attempts, region) = first_failure.expect("a call has one target at least");
        let region = region.or_else(|| self.settings.region.clone());
        let error = KmsError {
            kind,
            operation,
            key_id: named.clone(),
            metadata: Box::new(metadata),
            endpoint: Box::new(Endpoint { host: attempts.host(), region }),
            attempts: Some(attempts.made()),
            breaker_was_open: attempts.breaker_was_open(),
            elapsed: Some(started.elapsed()),
            calls: u32::from(!attempts.breaker_was_open()),
        };
        counted.end(made, throttled, Some(&error));
        if let KmsErrorKind::UnexpectedAnswer(reason) = &error.kind {
            let host = error.endpoint.host.clone().unwrap_or_default();
            self.lasting.events.add(Event::Untrusted { key_id: named.clone(), reason: reason.to_string(), host });
        }
        Err(error)
    }

    async fn call_target<T>(
        &self,
        target: &Target,
        time: Duration,
        call: &impl AsyncFn(Attempt) -> Result<T, Failure>,
        attempts: &Attempts,
    ) -> Result<T, Failure> {
        let deadline = tokio::time::Instant::now() + time;
        let permit = || self.permit(target, attempts).inspect_err(|_| attempts.set_breaker_was_open());
        let mut leave = permit()?;
        if let Some(rate) = self.settings.max_calls_per_second
            && !self.lasting.limiter.try_turn(rate)
        {
            // Whoever waits for a turn probes nothing meanwhile.
            drop(leave);
            // And leaves time for the call.
            let turn = tokio::time::timeout(time / 2, self.lasting.limiter.turn(rate)).await;
            turn.map_err(|_elapsed| KmsErrorKind::HeldBack)?;
            leave = permit()?;
        }
        let permit = leave;
        let whole_call = async {
            let (client, generation) = self.clients.client(target.region.as_deref()).await?;
            let (key_id, is_own) = (&target.key_id, target.is_own);
            let attempt = |client| Attempt { client, key_id: key_id.clone(), is_own, attempts: attempts.clone() };
            let result = call(attempt(client)).await;
            match &result {
                Err(failure) if failure.is_refusal_of_credentials() && self.clients.renew_credentials(generation) => {
                    let (client, _) = self.clients.client(target.region.as_deref()).await?;
                    call(attempt(client)).await
                }
                _ => result,
            }
        };
        let result = match tokio::time::timeout_at(deadline, whole_call).await {
            Err(_elapsed) => Err(KmsErrorKind::TimedOut.into()),
            Ok(result) => result,
        };
        // What KMS has said is what is wrong, and not that time ran out for one attempt more.
        let mut result = result.map_err(|failure: Failure| match failure.kind {
            KmsErrorKind::TimedOut => attempts.take_answer().unwrap_or(failure),
            _ => failure,
        });
        if let Err(failure) = &mut result
            && failure.leaves_key_state_open()
            && failure.kind.is_outage()
            && let Some(state) = self.state_out_of_use(target, deadline).await
        {
            failure.kind = KmsErrorKind::KeyUnusable;
            failure.metadata.message = Some(format!("DescribeKey says that its state is {state}"));
        }
        permit.record(result.as_ref().err());
        result
    }

    /// The state of a key that is out of use until somebody does something about it. `None` also if KMS does not say.
    async fn state_out_of_use(&self, target: &Target, deadline: tokio::time::Instant) -> Option<&'static str> {
        let named = target.key_id.to_string();
        let counted = self.lasting.statistics.begin(Operation::DescribeKey, &named);
        let describe = async {
            let (client, _) = self.clients.client(target.region.as_deref()).await.ok()?;
            let once = aws_sdk_kms::config::Builder::new().retry_config(RetryConfig::disabled());
            let described = client.describe_key().key_id(&named).customize().config_override(once).send().await.ok()?;
            described.key_metadata?.key_state
        };
        let until = deadline.min(tokio::time::Instant::now() + DESCRIBE_KEY_TIME);
        let state = tokio::time::timeout_at(until, describe).await.ok().flatten();
        counted.end(1, 0, None);
        match state? {
            KeyState::Disabled => Some("Disabled"),
            KeyState::PendingDeletion => Some("PendingDeletion"),
            KeyState::PendingReplicaDeletion => Some("PendingReplicaDeletion"),
            KeyState::PendingImport => Some("PendingImport"),
            _ => None,
        }
    }

    fn permit(&self, target: &Target, attempts: &Attempts) -> Result<CallPermit<'_>, Failure> {
        let region = target.region.clone().or_else(|| self.settings.region.clone());
        let key_scope = Scope { region: region.clone(), key_id: Some(target.key_id.to_string()) };
        let scopes = [Scope { region, key_id: None }, key_scope];
        // Dropped as long as a breaker is open: a probe that the other breaker was ready for is then given up.
        let since = Some(Instant::now());
        let mut permit = CallPermit { kms: self, attempts: attempts.clone(), scopes, probing: [false; 2], since };
        let mut breakers = self.breakers.lock();
        let mut open = None;
        for (scope, probing) in permit.scopes.iter().zip(&mut permit.probing) {
            match breakers.get_mut(scope).map(|breaker| breaker.permit(Instant::now())) {
                None | Some(Permit::Call) => {}
                Some(Permit::Probe) => *probing = true,
                Some(Permit::Open(failure)) => open = Some(failure),
            }
        }
        // Dropping the permit takes the lock again.
        drop(breakers);
        open.map_or(Ok(permit), Err)
    }
}

/// Leave to make one call.
struct CallPermit<'a> {
    kms: &'a AwsKms,
    attempts: Attempts,
    /// The region's, and the key's.
    scopes: [Scope; 2],
    probing: [bool; 2],
    /// When the call began; `None` when its result was recorded.
    since: Option<Instant>,
}

/// What a call says about the service.
enum Outcome {
    /// KMS has answered sensibly, if only with a refusal.
    Reached,
    /// It is down, or throttles.
    Outage(Failure),
    /// Nothing: there are no credentials, or the statement was cancelled before much time had passed.
    Unknown,
}

impl Outcome {
    fn of(failure: Option<&Failure>) -> Self {
        match failure {
            Some(Failure { kind: KmsErrorKind::HeldBack, .. }) => Self::Unknown,
            Some(failure) if failure.kind.is_outage() => Self::Outage(failure.clone()),
            Some(failure) if !failure.is_of_key() => Self::Unknown,
            _ => Self::Reached,
        }
    }
}

impl CallPermit<'_> {
    fn record(mut self, failure: Option<&Failure>) {
        self.since = None;
        self.settle(&Outcome::of(failure));
    }

    fn settle(&mut self, outcome: &Outcome) {
        let now = Instant::now();
        let probing = std::mem::take(&mut self.probing);
        let mut breakers = self.kms.breakers.lock();
        for ((scope, was_probe), is_region) in self.scopes.iter().zip(probing).zip([true, false]) {
            match outcome {
                // Without an error code it is the region that is down; with one it is the key.
                Outcome::Outage(failure) if failure.is_of_key() != is_region => {
                    let mut jitter = [0];
                    // Without randomness all probe at the same time; that is no reason to fail.
                    let _ = getrandom::fill(&mut jitter);
                    let breaker = breakers.get_or_insert_mut(scope.clone(), Breaker::new);
                    if breaker.failed(failure.clone(), was_probe, now, jitter[0]) {
                        let error = failure.kind.to_string();
                        self.kms.lasting.events.add(Event::OutageBegan { scope: scope.to_string(), error });
                    }
                }
                Outcome::Outage(failure) if !failure.is_of_key() => give_up_probe(&mut breakers, scope, was_probe),
                Outcome::Unknown => give_up_probe(&mut breakers, scope, was_probe),
                Outcome::Reached | Outcome::Outage(_) => {
                    if let Some(lasted) = breakers.pop(scope).and_then(|mut breaker| breaker.succeeded(now)) {
                        self.kms.lasting.events.add(Event::OutageEnded { scope: scope.to_string(), lasted });
                    }
                }
            }
        }
    }
}

fn give_up_probe(breakers: &mut Breakers, scope: &Scope, was_probe: bool) {
    if was_probe && let Some(breaker) = breakers.get_mut(scope) {
        breaker.probe_cancelled();
    }
}

impl Drop for CallPermit<'_> {
    fn drop(&mut self) {
        // The future of the call was dropped: the statement was cancelled. As when time runs out, what KMS has said while the
        // SDK waited to try again is what is wrong.
        if let Some(since) = self.since.take() {
            let in_vain = since.elapsed() >= GIVEN_UP_IN_VAIN;
            let failure = in_vain.then(|| self.attempts.take_answer().unwrap_or(KmsErrorKind::TimedOut.into()));
            self.settle(&failure.as_ref().map_or(Outcome::Unknown, |failure| Outcome::of(Some(failure))));
        }
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let region = self.region.as_deref().unwrap_or("of the AWS configuration");
        match &self.key_id {
            None => write!(formatter, "region {region}"),
            Some(key_id) => write!(formatter, "key {key_id} in region {region}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:kms:us-west-2:111122223333:key/715c0818-5825-4245-a755-138a6d9a11e6";
    const SECOND: Duration = Duration::from_secs(1);

    fn kms() -> AwsKms {
        let settings = Settings {
            region: None,
            endpoint_url: None,
            profile: None,
            timeout: SECOND,
            max_attempts: 1,
            max_calls_per_second: None,
            failover_regions: Vec::new(),
        };
        AwsKms::new(settings, Lasting::default())
    }

    fn ask<'a>(kms: &'a AwsKms, arn: &str) -> Result<CallPermit<'a>, Failure> {
        let target = Target { region: Some("us-west-2".into()), key_id: KeyId::parse(arn).unwrap(), is_own: true };
        kms.permit(&target, &Attempts::default())
    }

    fn answered(kind: KmsErrorKind) -> Failure {
        let mut failure = Failure::from(kind);
        failure.metadata.code = Some("SomeException".into());
        failure
    }

    #[test]
    fn no_answer_opens_the_region_and_an_answer_the_key() {
        let other = ARN.replace("715c", "815c");
        let kms = kms();
        ask(&kms, ARN).unwrap().record(Some(&answered(KmsErrorKind::Throttled)));
        assert!(ask(&kms, ARN).is_err());
        assert!(ask(&kms, &other).is_ok());
        ask(&kms, &other).unwrap().record(Some(&KmsErrorKind::TimedOut.into()));
        assert!(ask(&kms, &other).is_err());
    }

    #[test]
    fn refusals_and_missing_credentials_open_nothing() {
        let kms = kms();
        for failure in [answered(KmsErrorKind::AccessDenied), KmsErrorKind::NoCredentials(String::new()).into()] {
            ask(&kms, ARN).unwrap().record(Some(&failure));
            assert!(ask(&kms, ARN).is_ok());
        }
    }

    #[test]
    fn a_probe_that_the_other_breaker_stops_is_given_up() {
        let kms = kms();
        let permit = ask(&kms, ARN).unwrap();
        let (region, key) = (permit.scopes[0].clone(), permit.scopes[1].clone());
        drop(permit);
        let failure = Failure::from(KmsErrorKind::TimedOut);
        let long_ago = Instant::now() - 2 * SECOND;
        kms.breakers.lock().get_or_insert_mut(region, Breaker::new).failed(failure.clone(), false, long_ago, 0);
        kms.breakers.lock().get_or_insert_mut(key.clone(), Breaker::new).failed(failure, false, Instant::now(), 255);
        assert!(ask(&kms, ARN).is_err(), "the key's breaker is open");
        kms.breakers.lock().pop(&key);
        let probe = ask(&kms, ARN).expect("the region's breaker still lets one probe");
        assert!(ask(&kms, ARN).is_err(), "one at a time");
        probe.record(None);
        assert!(ask(&kms, ARN).is_ok());
    }

    #[test]
    fn only_a_call_that_was_given_up_late_says_something() {
        let kms = kms();
        drop(ask(&kms, ARN).unwrap());
        let mut permit = ask(&kms, ARN).expect("closed");
        permit.since = Some(Instant::now() - 2 * SECOND);
        drop(permit);
        assert!(ask(&kms, ARN).is_err());
    }
    #[test]
    fn a_call_that_was_given_up_while_kms_throttles_says_nothing_about_the_region() {
        let other = ARN.replace("715c", "815c");
        let kms = kms();
        let mut given_up = ask(&kms, ARN).unwrap();
        given_up.since = Some(Instant::now() - 2 * SECOND);
        given_up.attempts = Attempts::answered_with(answered(KmsErrorKind::Throttled));
        drop(given_up);
        assert!(ask(&kms, &other).is_ok(), "the region answers");
        assert_eq!(ask(&kms, ARN).err().map(|failure| failure.kind), Some(KmsErrorKind::Throttled));
    }

    /// Values name them.
    #[test]
    fn many_regions_out_of_reach_do_not_add_up() {
        let kms = kms();
        for number in 0..2_000 {
            let arn = ARN.replace("us-west-2", &format!("region-{number}"));
            let key_id = KeyId::parse(&arn).unwrap();
            let target = Target { region: Some(format!("region-{number}")), key_id, is_own: true };
            let permit = kms.permit(&target, &Attempts::default()).unwrap();
            permit.record(Some(&KmsErrorKind::TimedOut.into()));
            assert!(kms.permit(&target, &Attempts::default()).is_err());
        }
        assert_eq!(kms.breakers.lock().len(), MAX_BREAKERS.get());
    }
}
