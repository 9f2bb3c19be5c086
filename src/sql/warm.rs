//! `env_warm`, the aggregate: has the data keys of a query's values unwrapped while the query runs, many at a time.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use envelope_core::error::ValueError;
use envelope_core::format::{Head, HeadError};
use envelope_core::request::Calls;
use pgrx::pg_sys::Datum;

use crate::ask;
use crate::error::Error;
use crate::pg::function_call::{FunctionCall, sql_functions};
use crate::pg::report::notice;
use crate::pg::result::row_datum;
use crate::session::{self, Unwrapping};

/// Requests at a time: KMS answers each in some milliseconds, and its quota is for all clients of the account.
const MAX_PENDING: usize = 16;
/// Time between two signs of progress.
const NOTICE_INTERVAL: Duration = Duration::from_secs(5);

/// Heads that wait are no more than this, and one.
const MAX_WAITING_BYTES: usize = 1 << 20;

sql_functions! {
    env_warm_transition, pg_finfo_env_warm_transition => transition;
    env_warm_final, pg_finfo_env_warm_final => finish;
}

/// The state of one aggregation.
struct Warm {
    /// The data keys that were met, by their hashes: whole, they could be 65 kB each. Of two with the same hash the second is
    /// not unwrapped ahead, which happens with a probability of 2^-64 among 2^32.
    met: HashSet<u128>,
    hashers: [RandomState; 2],
    waiting: VecDeque<Cold>,
    /// Bytes of what waits.
    waiting_bytes: usize,
    pending: Vec<Unwrapping>,
    counts: Counts,
    next_notice: Instant,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    cold: u64,
    warm: u64,
    failed: u64,
    unwrapped: u64,
}

/// The head of a value whose data key the session does not have.
struct Cold {
    head: Box<[u8]>,
    value_bytes: usize,
}

impl Cold {
    fn with_head<T>(&self, read: impl FnOnce(&Head<'_>) -> Result<T, Error>) -> Result<T, Error> {
        match Head::parse(&self.head, self.value_bytes) {
            Ok(head) => read(&head),
            Err(HeadError::Invalid(error)) => Err(error.into()),
            Err(HeadError::NeedBytes(_)) => Err(ValueError::Truncated.into()),
        }
    }
}

impl Warm {
    fn new() -> Self {
        Self {
            met: HashSet::new(),
            hashers: [RandomState::new(), RandomState::new()],
            waiting_bytes: 0,
            waiting: VecDeque::new(),
            pending: Vec::new(),
            counts: Counts::default(),
            next_notice: Instant::now() + NOTICE_INTERVAL,
        }
    }

    /// Takes up a value that was not met before.
    fn add(&mut self, head: &Head<'_>) {
        if session::is_warm(head) {
            self.counts.warm += 1;
        } else {
            self.counts.cold += 1;
            self.waiting_bytes += head.as_bytes().len();
            self.waiting.push_back(Cold { head: head.as_bytes().into(), value_bytes: head.value_bytes() });
        }
    }

    /// Whether a data key was not met before.
    fn is_new(&mut self, head: &Head<'_>) -> bool {
        let [high, low] = self.hashers.each_ref().map(|hasher| u128::from(hasher.hash_one(head.dek_identity())));
        self.met.insert(high << 64 | low)
    }

    /// Goes on, and waits while too much waits: values can be compressed to a hundredth of their heads.
    fn keep_up(&mut self) -> Result<(), Error> {
        self.proceed()?;
        while self.waiting_bytes > MAX_WAITING_BYTES && !self.pending.is_empty() {
            ask::wait_for_any(self.pending.iter().map(|unwrapping| &unwrapping.pending), NOTICE_INTERVAL);
            self.proceed()?;
        }
        Ok(())
    }

    /// Takes up what has been answered, and asks for more.
    fn proceed(&mut self) -> Result<(), Error> {
        let mut at = 0;
        while at < self.pending.len() {
            match self.pending[at].pending.try_take() {
                None => at += 1,
                Some(reply) => {
                    let unwrapping = self.pending.swap_remove(at);
                    match unwrapping.finish(reply) {
                        Ok(Some(next)) => self.pending.push(next),
                        // Not of this data key: the statement may make no more calls.
                        Err(error @ Error::TooManyKmsCalls(_)) => return Err(error),
                        kept => self.count(kept.map(drop)),
                    }
                }
            }
        }
        // Those that are under way may turn out to be no calls: while none are left to make, one asks at a time.
        let may_ask = || session::kms_calls_allowed() != Calls::None;
        while self.pending.is_empty() || self.pending.len() < MAX_PENDING && may_ask() {
            let Some(cold) = self.waiting.pop_front() else { break };
            self.waiting_bytes -= cold.head.len();
            match cold.with_head(Unwrapping::start) {
                Ok(unwrapping) => self.pending.push(unwrapping),
                Err(error) => self.count(Err(error)),
            }
        }
        let now = Instant::now();
        if now >= self.next_notice {
            self.next_notice = now + NOTICE_INTERVAL;
            let Counts { cold, failed, unwrapped, .. } = self.counts;
            notice(&format!("env_warm: {unwrapped} of {cold} data keys so far, {failed} failed"));
        }
        Ok(())
    }

    /// Why a data key cannot be unwrapped is told to whoever decrypts with it.
    fn count(&mut self, kept: Result<(), Error>) {
        match kept {
            Ok(()) => self.counts.unwrapped += 1,
            Err(_) => self.counts.failed += 1,
        }
    }

    /// Waits for the rest.
    fn finish(&mut self) -> Result<Counts, Error> {
        loop {
            self.proceed()?;
            if self.pending.is_empty() {
                return Ok(self.counts);
            }
            ask::wait_for_any(self.pending.iter().map(|unwrapping| &unwrapping.pending), NOTICE_INTERVAL);
        }
    }
}

/// `env_warm_transition(internal, value bytea) -> internal`
fn transition(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let state = call.aggregate_state().unwrap_or_else(|| call.new_aggregate_state(Warm::new()));
    if let Some(value) = call.varlena(1) {
        state.with(|warm: &mut Warm| {
            let is_new = value.with_head(|head| {
                let is_new = warm.is_new(head);
                if is_new {
                    warm.add(head);
                }
                Ok(is_new)
            });
            // What is no encrypted value has no data key.
            if is_new == Ok(true) { warm.keep_up() } else { Ok(()) }
        })?;
    }
    Ok(Some(state.datum()))
}

/// `env_warm_final(internal) -> (cold, warm, failed)`
fn finish(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let counts = call.aggregate_state().map(|state| state.with(Warm::finish)).transpose()?.unwrap_or_default();
    let columns = [counts.cold, counts.warm, counts.failed].map(|count| Datum::from(count as i64));
    Ok(Some(row_datum(call, &columns)))
}
