//! What goes to the server's log, and how often: one line for each change of state, never one for each value.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use envelope_core::request::KmsError;
use envelope_kms::{Event, Events};
use lru::LruCache;

use crate::ask::own_thread;
use crate::pg::report::{log, warn};
use crate::pg::settings;

/// The same line is not written again for so long.
const INTERVAL: Duration = Duration::from_secs(60);
/// Lines that are remembered for that.
const REMEMBERED_LINES: std::num::NonZeroUsize = std::num::NonZeroUsize::new(64).unwrap();

thread_local! {
    static WRITTEN: RefCell<LruCache<String, Instant>> = RefCell::new(LruCache::new(REMEMBERED_LINES));
}

/// Writes what has happened on this backend's own thread.
pub fn write_events() {
    while let Some(event) = own_thread::take_event() {
        write_event(event);
    }
}

/// Writes what has happened on a thread.
pub fn write(events: &Events) {
    while let Some(event) = events.take() {
        write_event(event);
    }
}

fn write_event(event: Event) {
    match event {
        Event::OutageBegan { scope, error } => {
            log_once(&format!("KMS outage began for {scope}: circuit breaker opened: {error}"));
        }
        // The length makes it another line each time; the beginning of the next outage is what is held back.
        Event::OutageEnded { scope, lasted } => {
            if is_due(&format!("end {scope}")) {
                log(&format!("KMS outage ended for {scope} after {} ms: circuit breaker closed", lasted.as_millis()));
            }
        }
        Event::Untrusted { key_id, reason, host } => {
            log_once(&format!("KMS answer for key {key_id} cannot be trusted ({reason}); it came from host {host}"));
        }
        Event::FailedOver { key_id, region } => {
            log_once(&format!("KMS failed over to region {region} for key {key_id}"));
        }
        Event::BrokerMemoryShort { needed_again } => log(&format!(
            "envelope_pg.broker_memory is full: {needed_again} data keys that had been dropped were asked of KMS again"
        )),
    }
}

/// This session cannot see what others flush or replace.
pub fn shared_problem(problem: &str) {
    log_once(&format!("envelope_pg cannot see the flushes and rotations of other sessions: {problem}"));
}

/// The broker is of no help. Once a minute for the whole server: the caller has asked for leave.
pub fn broker_lost(reason: &str) {
    log(&format!("envelope_pg broker is not available ({reason}): sessions call KMS themselves for now"));
}

/// Data keys that the session had dropped to make room were needed again, so many so far.
pub fn cache_short(needed_again: u64) {
    if is_due("cache") {
        log(&format!(
            "envelope_pg.cache_memory or cache_entries is full: {needed_again} data keys that this session had dropped were \
             asked for again"
        ));
    }
}

/// A provider has refused a data key that was in use.
pub fn refused(error: &KmsError) {
    let code = error.metadata.code.as_deref().unwrap_or("no error code");
    log_once(&format!(
        "KMS refuses key {} ({code}): {error}; data keys under it were dropped from the cache",
        error.key_id
    ));
}

/// A data key serves past its time, since its provider cannot be asked.
pub fn served_stale(key_id: &str) {
    const MESSAGE: &str = "KMS is unreachable or throttles, so cached data keys serve past envelope_pg.cache_ttl";
    if is_due(MESSAGE) {
        let bound = settings::limits().stale_if_unreachable.as_secs();
        let detail = format!("Key {key_id}. The setting envelope_pg.stale_if_unreachable bounds this to {bound} s.");
        warn(MESSAGE, detail, "Check the network, the KMS endpoint and its quotas.");
    }
}

fn log_once(line: &str) {
    if is_due(line) {
        log(line);
    }
}

fn is_due(line: &str) -> bool {
    WRITTEN.with_borrow_mut(|written| {
        let now = Instant::now();
        let is_due = written.get(line).is_none_or(|last| now.saturating_duration_since(*last) >= INTERVAL);
        if is_due {
            written.put(line.to_owned(), now);
        }
        is_due
    })
}
