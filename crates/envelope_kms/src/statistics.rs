//! Counts of the calls to the key providers, for each operation and key.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use envelope_core::request::{KmsError, KmsErrorKind, Operation};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Statements and values name keys, so their number is bounded: further ones are counted together. A key that a provider has
/// answered for takes the place of one that it never has, so that names of no key do not crowd it out.
const MAX_KEYS: usize = 256;
/// The key of the further ones.
const OTHER_KEYS: &str = "(other keys)";
/// Upper bounds of the latency histogram's buckets in milliseconds; one more bucket has no bound.
pub const BUCKETS_MS: [u64; 11] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 5_000];

/// The counts of a process. Clones share them.
#[derive(Clone, Debug)]
pub struct Statistics(Arc<Mutex<Counts>>);

#[derive(Debug)]
struct Counts {
    since: SystemTime,
    by_call: HashMap<(Operation, String), CallCounts>,
    /// Which of them a call has succeeded for.
    confirmed: HashSet<(Operation, String)>,
}

impl Counts {
    fn new() -> Self {
        Self { since: SystemTime::now(), by_call: HashMap::new(), confirmed: HashSet::new() }
    }

    /// Makes room for a name, if there is none.
    fn make_room(&mut self) {
        let is_doubtful = |name: &&(Operation, String)| name.1 != OTHER_KEYS && !self.confirmed.contains(*name);
        if self.by_call.len() >= MAX_KEYS
            && let Some(name) = self.by_call.keys().find(is_doubtful).cloned()
            && let Some(counts) = self.by_call.remove(&name)
        {
            self.by_call.entry((name.0, OTHER_KEYS.to_owned())).or_default().add(&counts);
        }
    }
}

/// The counts of one operation with one key.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct CallCounts {
    /// Calls that ended, whatever their end.
    pub calls: u64,
    /// Of these, calls that were given up because the statement was cancelled.
    pub cancelled: u64,
    /// Calls that a circuit breaker kept from being made; not among the calls.
    pub not_tried: u64,
    /// Attempts after the first of a call.
    pub retries: u64,
    /// Attempts that KMS answered with throttling.
    pub throttled_attempts: u64,
    /// Times that a data key served beyond its time because of an outage.
    pub stale_serves: u64,
    /// Calls that failed, by class.
    pub errors: ErrorCounts,
    /// Total duration of the calls.
    pub latency_sum: Duration,
    /// The longest call.
    pub latency_max: Duration,
    /// Calls by duration: see [`BUCKETS_MS`].
    pub latency_buckets: [u64; BUCKETS_MS.len() + 1],
    /// Since when all calls were refused: access denied, key out of use or not found.
    pub denied_since: Option<SystemTime>,
}

/// Failed calls by the class of their error.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "named after KmsErrorKind")]
pub struct ErrorCounts {
    pub unreachable: u64,
    pub timed_out: u64,
    pub throttled: u64,
    pub no_credentials: u64,
    pub access_denied: u64,
    pub key_unusable: u64,
    pub not_found: u64,
    pub untrusted: u64,
    pub other: u64,
}

/// One row of the counts.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CallStatistics {
    /// What was called.
    pub operation: Operation,
    /// The key that the call named.
    pub key_id: String,
    /// The counts.
    pub counts: CallCounts,
}

/// All rows, and since when they count.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct StatisticsSnapshot {
    /// When they were reset, or the process began to count.
    pub since: SystemTime,
    /// Sorted by key and operation.
    pub rows: Vec<CallStatistics>,
}

/// A call that is being made. Dropped without an end, it counts as cancelled.
pub(crate) struct CallInProgress<'a> {
    statistics: &'a Statistics,
    operation: Operation,
    key_id: &'a str,
    started: Instant,
    ended: bool,
}

impl Statistics {
    /// Nothing counted yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Counts::new())))
    }

    /// Begins a call.
    pub(crate) fn begin<'a>(&'a self, operation: Operation, key_id: &'a str) -> CallInProgress<'a> {
        CallInProgress { statistics: self, operation, key_id, started: Instant::now(), ended: false }
    }

    /// Counts a data key that served beyond its time.
    pub fn served_stale(&self, operation: Operation, key_id: &str) {
        self.update(operation, key_id, |counts| counts.stale_serves += 1);
    }

    /// The counts so far.
    #[must_use]
    pub fn snapshot(&self) -> StatisticsSnapshot {
        let counts = self.0.lock();
        let row = |((operation, key_id), counts): (&(Operation, String), &CallCounts)| CallStatistics {
            operation: *operation,
            key_id: key_id.clone(),
            counts: counts.clone(),
        };
        let mut rows: Vec<_> = counts.by_call.iter().map(row).collect();
        rows.sort_by(|one, other| (&one.key_id, one.operation as u8).cmp(&(&other.key_id, other.operation as u8)));
        StatisticsSnapshot { since: counts.since, rows }
    }

    /// Counts from zero again.
    pub fn reset(&self) {
        *self.0.lock() = Counts::new();
    }

    fn update(&self, operation: Operation, key_id: &str, update: impl FnOnce(&mut CallCounts)) {
        let mut counts = self.0.lock();
        let name = (operation, key_id.to_owned());
        if !counts.by_call.contains_key(&name) {
            counts.make_room();
        }
        let has_place = counts.by_call.contains_key(&name) || counts.by_call.len() < MAX_KEYS;
        let place = if has_place { name } else { (operation, OTHER_KEYS.to_owned()) };
        update(counts.by_call.entry(place).or_default());
    }

    /// A call has succeeded: its key keeps its place.
    fn confirm(&self, operation: Operation, key_id: &str) {
        let mut counts = self.0.lock();
        let name = (operation, key_id.to_owned());
        if counts.by_call.contains_key(&name) {
            counts.confirmed.insert(name);
        }
    }
}

impl Default for Statistics {
    fn default() -> Self {
        Self::new()
    }
}

impl CallInProgress<'_> {
    /// The call has ended, after some attempts of which some were throttled.
    pub(crate) fn end(mut self, attempts: u32, throttled_attempts: u32, error: Option<&KmsError>) {
        self.ended = true;
        let elapsed = self.started.elapsed();
        self.statistics.update(self.operation, self.key_id, |counts| {
            if attempts == 0 && error.is_some_and(|error| !error.was_made()) {
                counts.not_tried += 1;
                return;
            }
            counts.count(elapsed);
            counts.retries += u64::from(attempts.saturating_sub(1));
            counts.throttled_attempts += u64::from(throttled_attempts);
            match error {
                Some(error) => counts.errors.count(&error.kind),
                None => counts.denied_since = None,
            }
            if error.is_some_and(|error| error.kind.is_refusal() && error.kind != KmsErrorKind::WrappedKeyRejected) {
                counts.denied_since.get_or_insert_with(SystemTime::now);
            }
        });
        if error.is_none() {
            self.statistics.confirm(self.operation, self.key_id);
        }
    }
}

impl Drop for CallInProgress<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let elapsed = self.started.elapsed();
            self.statistics.update(self.operation, self.key_id, |counts| {
                counts.count(elapsed);
                counts.cancelled += 1;
            });
        }
    }
}

impl CallCounts {
    /// Adds those of another key.
    fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.cancelled += other.cancelled;
        self.not_tried += other.not_tried;
        self.retries += other.retries;
        self.throttled_attempts += other.throttled_attempts;
        self.stale_serves += other.stale_serves;
        self.errors.add(&other.errors);
        self.latency_sum += other.latency_sum;
        self.latency_max = self.latency_max.max(other.latency_max);
        self.latency_buckets.iter_mut().zip(other.latency_buckets).for_each(|(bucket, calls)| *bucket += calls);
    }

    fn count(&mut self, elapsed: Duration) {
        self.calls += 1;
        self.latency_sum += elapsed;
        self.latency_max = self.latency_max.max(elapsed);
        let bucket = BUCKETS_MS.iter().position(|bound| elapsed <= Duration::from_millis(*bound));
        self.latency_buckets[bucket.unwrap_or(BUCKETS_MS.len())] += 1;
    }
}

impl ErrorCounts {
    fn count(&mut self, kind: &KmsErrorKind) {
        *match kind {
            KmsErrorKind::Unreachable(_) | KmsErrorKind::KeyUnavailable(_) => &mut self.unreachable,
            KmsErrorKind::TimedOut => &mut self.timed_out,
            KmsErrorKind::Throttled => &mut self.throttled,
            KmsErrorKind::NoCredentials(_) => &mut self.no_credentials,
            KmsErrorKind::AccessDenied => &mut self.access_denied,
            KmsErrorKind::KeyUnusable => &mut self.key_unusable,
            KmsErrorKind::NotFound => &mut self.not_found,
            KmsErrorKind::UnexpectedAnswer(_) => &mut self.untrusted,
            _ => &mut self.other,
        } += 1;
    }

    fn add(&mut self, other: &Self) {
        for (count, more) in self.all().into_iter().zip(other.clone().all()) {
            *count += *more;
        }
    }

    /// All failed calls.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.clone().all().into_iter().map(|count| *count).sum()
    }

    fn all(&mut self) -> [&mut u64; 9] {
        let Self {
            unreachable,
            timed_out,
            throttled,
            no_credentials,
            access_denied,
            key_unusable,
            not_found,
            untrusted,
            other,
        } = self;
        [unreachable, timed_out, throttled, no_credentials, access_denied, key_unusable, not_found, untrusted, other]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_of_a_call_is_counted() {
        let statistics = Statistics::new();
        statistics.begin(Operation::Decrypt, "key").end(1, 0, None);
        let error = KmsError::new(KmsErrorKind::Throttled, Operation::Decrypt, "key");
        statistics.begin(Operation::Decrypt, "key").end(3, 3, Some(&error));
        let open = KmsError { breaker_was_open: true, ..error };
        statistics.begin(Operation::Decrypt, "key").end(0, 0, Some(&open));
        drop(statistics.begin(Operation::Decrypt, "key"));
        statistics.served_stale(Operation::Decrypt, "key");
        let rows = statistics.snapshot().rows;
        let [CallStatistics { counts, .. }] = rows.as_slice() else { panic!("one operation and key") };
        assert_eq!((counts.calls, counts.cancelled, counts.not_tried), (3, 1, 1));
        assert_eq!((counts.retries, counts.throttled_attempts, counts.stale_serves), (2, 3, 1));
        assert_eq!((counts.errors.throttled, counts.errors.total()), (1, 1));
        assert_eq!(counts.latency_buckets.iter().sum::<u64>(), 3);
        statistics.reset();
        assert!(statistics.snapshot().rows.is_empty());
    }

    #[test]
    fn names_of_no_key_do_not_crowd_out_keys() {
        let statistics = Statistics::new();
        let missing = KmsError::new(KmsErrorKind::NotFound, Operation::Decrypt, "junk");
        statistics.begin(Operation::Decrypt, "early").end(1, 0, None);
        for junk in 0..3 * MAX_KEYS {
            statistics.begin(Operation::Decrypt, &format!("junk {junk}")).end(1, 0, Some(&missing));
        }
        for _ in 0..2 {
            statistics.begin(Operation::Decrypt, "late").end(1, 0, None);
        }
        let calls = |key: &str| {
            let rows = statistics.snapshot().rows;
            rows.iter().filter(|row| row.key_id.starts_with(key)).map(|row| row.counts.calls).sum::<u64>()
        };
        assert_eq!((calls("early"), calls("late"), calls("")), (1, 2, 3 * MAX_KEYS as u64 + 3));
        assert!(statistics.snapshot().rows.len() <= MAX_KEYS + 1);
    }

    #[test]
    fn a_key_is_denied_since_its_last_success() {
        let statistics = Statistics::new();
        let denied = KmsError::new(KmsErrorKind::AccessDenied, Operation::Decrypt, "key");
        let since = || statistics.snapshot().rows[0].counts.denied_since;
        statistics.begin(Operation::Decrypt, "key").end(1, 0, Some(&denied));
        let first = since().expect("it is denied");
        statistics.begin(Operation::Decrypt, "key").end(1, 0, Some(&denied));
        assert_eq!(since(), Some(first));
        statistics.begin(Operation::Decrypt, "key").end(1, 0, None);
        assert_eq!(since(), None);
    }

    #[test]
    fn the_number_of_keys_is_bounded() {
        let statistics = Statistics::new();
        for key in 0..2 * MAX_KEYS {
            statistics.served_stale(Operation::Decrypt, &key.to_string());
        }
        let rows = statistics.snapshot().rows;
        assert_eq!(rows.len(), MAX_KEYS);
        assert_eq!(rows.iter().map(|row| row.counts.stale_serves).sum::<u64>(), 2 * MAX_KEYS as u64);
    }
}
