//! What goes on in all sessions of the server, in the counters that all processes see: calls by database and role, sessions on
//! their own, what becomes of their data keys.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use envelope_core::cache::bounded::CacheCounts;
use envelope_core::request::{Reply, Request};

use super::{AVOIDANCE, ROLE_WORDS, now_ms, with_counters};
use crate::error::Error;
use crate::pg::backend;

/// A session that called KMS itself so long ago does so no more.
const LATELY: Duration = Duration::from_secs(60);
/// The owner of the counts of those for whom there was no more room.
const OTHERS: u64 = u64::MAX;

/// The KMS calls that sessions of a role in a database caused, since the server started.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoleCalls {
    /// The OIDs of database and role; `None`: of all for whom there was no more room.
    pub owner: Option<(u32, u32)>,
    /// GenerateDataKey, Decrypt, ReEncrypt.
    pub calls: [u64; 3],
    /// Of these, calls that failed.
    pub errors: u64,
    /// Of these, calls that KMS refused: access denied, key out of use or not found.
    pub refused: u64,
    /// Answers with a data key that served past its time.
    pub stale_serves: u64,
}

/// Counts a damaged value, as far as that can be counted.
pub fn count_damaged() {
    let _ = with_counters(|counters| counters.damaged.fetch_add(1, Ordering::Relaxed));
}

/// Damaged values since the server started.
pub fn damaged() -> u64 {
    with_counters(|counters| counters.damaged.load(Ordering::Relaxed)).unwrap_or_default()
}

/// Counts what a request of this session came to, if it took a call to KMS.
pub fn count_call(request: &Request, reply: &Result<Reply, Error>) {
    let operation = match request {
        Request::SealingKey { .. } | Request::ReplaceDek { .. } => 0,
        Request::OpeningKey { .. } => 1,
        Request::Rewrap { .. } => 2,
    };
    let (calls, failed, refused, stale) = match reply {
        Ok(reply) => (reply.calls(), false, false, reply.is_stale()),
        Err(Error::Kms(error)) => {
            let failed = error.was_made();
            (error.calls, failed, failed && error.kind.is_refusal(), false)
        }
        Err(_) => return,
    };
    if calls == 0 && !stale {
        return;
    }
    if stale {
        note_stale();
    }
    let (database, role) = backend::database_and_role();
    let _ = with_counters(|counters| {
        let [_, words @ ..] = role_words(counters.roles, u64::from(database) << 32 | u64::from(role)) else { return };
        let add = |word: usize, count: u32| words[word].fetch_add(u64::from(count), Ordering::Relaxed);
        add(operation, calls);
        add(3, failed.into());
        add(4, refused.into());
        add(5, stale.into());
    });
}

/// Notes that a data key serves past its time now.
pub fn note_stale() {
    let _ = with_counters(|counters| counters.stale_at.store(now_ms(), Ordering::Relaxed));
}

/// Counts a call that this session made itself.
pub fn count_own_call() {
    let (process, second) = (u64::from(backend::process_id().unsigned_abs()), now_ms() / 1_000);
    let _ = with_counters(|counters| {
        counters.own_calls.fetch_add(1, Ordering::Relaxed);
        let is_free = |word: u64| word >> 32 == process || !is_lately(word, second);
        // Its own place, or that of one that is not on its own any more.
        let mine = counters.on_their_own.iter().find(|word| word.load(Ordering::Relaxed) >> 32 == process);
        let place = mine.or_else(|| counters.on_their_own.iter().find(|word| is_free(word.load(Ordering::Relaxed))));
        if let Some(place) = place {
            place.store(process << 32 | second & 0xffff_ffff, Ordering::Relaxed);
        }
    });
}

fn is_lately(word: u64, second: u64) -> bool {
    word != 0 && second.abs_diff(word & 0xffff_ffff) < LATELY.as_secs()
}

/// Counts what has happened to the data keys of this session, of whose cache `fill` is in use.
pub fn count_cache_use(since: CacheCounts, fill: f64) {
    let CacheCounts { hits, misses, evictions, evicted_needed } = since;
    let (thousandths, second) = ((fill * 1e3) as u64, now_ms() / 1_000);
    let _ = with_counters(|counters| {
        for (word, count) in counters.cache.iter().zip([hits, misses, evictions, evicted_needed]) {
            word.fetch_add(count, Ordering::Relaxed);
        }
        let _ = counters.fullest_cache.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |fullest| {
            let is_fuller = thousandths >= fullest >> 32 || !is_lately(fullest, second);
            (thousandths > 0 && is_fuller).then_some(thousandths << 32 | second & 0xffff_ffff)
        });
    });
}

/// What goes on in all sessions of the server, whether or not there is a broker.
#[derive(Clone, Copy, Debug)]
pub struct Overview {
    /// For how many more seconds the broker is avoided.
    pub broker_avoided_seconds: f64,
    /// Sessions that called KMS themselves in the last minute.
    pub sessions_on_their_own: u64,
    /// Calls that sessions made without the broker.
    pub own_calls: u64,
    /// When a data key last served past its time, in seconds since 1970.
    pub last_stale: Option<f64>,
    /// Whether that was in the last minute.
    pub serving_stale: bool,
    /// Values that env_try_decrypt could not open.
    pub damaged: u64,
    /// What has happened to the data keys of all sessions.
    pub cache: CacheCounts,
    /// How much of its bounds the fullest cache of a session had in the last minute: 1 is all.
    pub fullest_cache: f64,
}

/// The state of the server.
///
/// # Errors
/// If the file cannot be used.
pub fn overview() -> io::Result<Overview> {
    let now = now_ms();
    with_counters(|counters| {
        let own = counters.on_their_own.iter().filter(|word| is_lately(word.load(Ordering::Relaxed), now / 1_000));
        let stale_at = counters.stale_at.load(Ordering::Relaxed);
        let [hits, misses, evictions, evicted_needed] =
            std::array::from_fn(|word| counters.cache[word].load(Ordering::Relaxed));
        let fullest = counters.fullest_cache.load(Ordering::Relaxed);
        let avoided_until = counters.avoided_until.load(Ordering::Relaxed);
        let avoided_ms = avoided_until.saturating_sub(now).min(AVOIDANCE.as_millis() as u64);
        Overview {
            broker_avoided_seconds: avoided_ms as f64 / 1e3,
            sessions_on_their_own: own.count() as u64,
            own_calls: counters.own_calls.load(Ordering::Relaxed),
            last_stale: (stale_at > 0).then_some(stale_at as f64 / 1e3),
            serving_stale: stale_at > 0 && now.abs_diff(stale_at) < LATELY.as_millis() as u64,
            damaged: counters.damaged.load(Ordering::Relaxed),
            cache: CacheCounts { hits, misses, evictions, evicted_needed },
            fullest_cache: if is_lately(fullest, now / 1_000) { (fullest >> 32) as f64 / 1e3 } else { 0.0 },
        }
    })
}

/// The counts of a role, which takes the next free place at its first call.
fn role_words(roles: &[AtomicU64], owner: u64) -> &[AtomicU64] {
    let mut places = roles.chunks_exact(ROLE_WORDS).peekable();
    while let Some(place) = places.next() {
        let owner = if places.peek().is_some() { owner } else { OTHERS };
        let taken = place[0].compare_exchange(0, owner, Ordering::SeqCst, Ordering::SeqCst);
        if taken.is_ok() || taken == Err(owner) {
            return place;
        }
    }
    &[]
}

/// The KMS calls by database and role.
///
/// # Errors
/// If the file cannot be used.
pub fn role_calls() -> io::Result<Vec<RoleCalls>> {
    with_counters(|counters| {
        let read = |place: &[AtomicU64]| {
            let [owner, generates, decrypts, rewraps, errors, refused, stale_serves] =
                std::array::from_fn(|word| place[word].load(Ordering::Relaxed));
            let oids = (owner != OTHERS).then_some(((owner >> 32) as u32, owner as u32));
            let calls = [generates, decrypts, rewraps];
            (owner != 0).then_some(RoleCalls { owner: oids, calls, errors, refused, stale_serves })
        };
        counters.roles.chunks_exact(ROLE_WORDS).filter_map(read).collect()
    })
}
