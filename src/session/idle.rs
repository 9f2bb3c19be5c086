//! Wipes the data keys of a session whose time is up, and heeds a flush by others, also while the session waits for its client:
//! within about a second.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use envelope_core::cache::Limits;
use envelope_core::keys::stack::wipe_stack;
use once_cell::sync::OnceCell;

use super::surroundings::Here;
use super::{SESSION, with_policy};
use crate::ask::shared_counters;
use crate::pg::idle::{self, Watch};
use crate::pg::registers;
use crate::pg::settings;

/// When the first data key is of no more use, in milliseconds since [`START`].
static NEXT: AtomicU64 = AtomicU64::new(u64::MAX);
/// The flushes that the session has acted on.
static FLUSHES: AtomicU64 = AtomicU64::new(0);
/// Whether the stack is to be wiped.
static WIPE: AtomicBool = AtomicBool::new(false);
static START: OnceCell<Instant> = OnceCell::new();

/// The session may have a data key more.
pub fn watch() {
    let Limits { ttl, stale_if_unreachable, .. } = settings::limits();
    let useful = START.get_or_init(Instant::now).elapsed().saturating_add(ttl).saturating_add(stale_if_unreachable);
    NEXT.fetch_min(useful.as_millis() as u64, Ordering::Relaxed);
    let flushes = with_policy(|policy| policy.seen_flushes()).unwrap_or_default();
    if FLUSHES.swap(flushes, Ordering::Relaxed) != flushes {
        wipe_stack_at_end();
    }
    idle::begin(Watch { is_due, act, tell: super::tell_cache_use });
}

/// Wipes the stack at the end of the transaction, too: what was opened before by a statement with a shorter plan has left what it
/// computed above where a flush wipes.
pub fn wipe_stack_at_end() {
    WIPE.store(true, Ordering::Relaxed);
    idle::begin(Watch { is_due, act, tell: super::tell_cache_use });
    idle::at_end_of_transaction();
}

/// In a signal handler.
fn is_due() -> bool {
    let now = START.get().map_or(u64::MAX, |start| start.elapsed().as_millis() as u64);
    let is_flushed = shared_counters::epochs().is_none_or(|epochs| epochs.flushes != FLUSHES.load(Ordering::Relaxed));
    let is_deaf = shared_counters::is_file_replaced();
    if is_deaf {
        // In the middle of a statement, too: what it needs next is asked for, and the other file is mapped before.
        shared_counters::flush_own_file();
    }
    now >= NEXT.load(Ordering::Relaxed) || is_flushed || is_deaf
}

/// Whether there are data keys left.
fn act() -> bool {
    // As long as that fails, a session that cannot see flushes keeps a data key for a second.
    let _ = shared_counters::follow_file();
    if WIPE.swap(false, Ordering::Relaxed) {
        registers::clear();
        wipe_stack();
    }
    let start = START.get_or_init(Instant::now);
    SESSION.with(|session| {
        // In use: at the next look.
        let Ok(mut session) = session.try_borrow_mut() else { return true };
        let Some(policy) = session.as_mut().map(|session| &mut session.policy) else { return false };
        let left = policy.prune(&Here);
        FLUSHES.store(policy.seen_flushes().unwrap_or_default(), Ordering::Relaxed);
        let next = policy.next_useless(&Here);
        let next = next.map_or(u64::MAX, |next| next.saturating_duration_since(*start).as_millis() as u64);
        NEXT.store(next, Ordering::Relaxed);
        left > 0
    })
}
