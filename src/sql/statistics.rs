//! The SQL functions that show what happens: as JSON, of which sql/ makes views. Never key material.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use envelope_broker::protocol::{Command, Response, Status};
use envelope_core::cache::{CachedKey, Consent};
use envelope_kms::statistics::{BUCKETS_MS, CallStatistics, StatisticsSnapshot};
use pgrx::pg_sys::Datum;
use serde_json::{Value, json};

use crate::ask::broker::{self, last_words};
use crate::ask::own_thread;
use crate::ask::shared_counters::{self, RoleCalls};
use crate::error::{BROKER_HINT, Error};
use crate::pg::function_call::{FunctionCall, sql_functions};
use crate::pg::report::warn;
use crate::pg::result::{jsonb_datum, row_datum};
use crate::pg::settings;
use crate::session;

sql_functions! {
    env_stat_kms_json, pg_finfo_env_stat_kms_json => stat_kms;
    env_stat_cache_json, pg_finfo_env_stat_cache_json => stat_cache;
    env_stat_broker_json, pg_finfo_env_stat_broker_json => stat_broker;
    env_stat_role_json, pg_finfo_env_stat_role_json => stat_role;
    env_stat_server_json, pg_finfo_env_stat_server_json => stat_server;
    env_stat_reset, pg_finfo_env_stat_reset => stat_reset;
    env_kms_calls, pg_finfo_env_kms_calls => kms_calls;
}

/// An array of rows for the view `env_stat_kms`: the broker's counts, and those of this session's own calls.
fn stat_kms(_call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let mut rows = Vec::new();
    match broker::watch_running(&Command::Statistics) {
        Ok(Some(Response::Statistics(snapshot))) => add_rows(&mut rows, "broker", snapshot),
        Ok(_) => {}
        // The session's own calls are of interest then above all.
        Err(error) => {
            if let Some((_, snapshot)) = last_words::read() {
                add_rows(&mut rows, "broker", snapshot);
            }
            warn(&error.to_string(), "Its counts are those from before.".into(), BROKER_HINT);
        }
    }
    if let Some(statistics) = own_thread::statistics() {
        add_rows(&mut rows, "session", statistics.snapshot());
    }
    jsonb_datum(&Value::Array(rows).to_string()).map(Some)
}

fn add_rows(rows: &mut Vec<Value>, source: &str, StatisticsSnapshot { since, rows: counts }: StatisticsSnapshot) {
    rows.extend(counts.into_iter().map(|CallStatistics { operation, key_id, counts }| {
        json!({
            "source": source,
            "operation": operation.to_string(),
            "key_id": key_id,
            "calls": counts.calls,
            "errors": counts.errors.total(),
            "errors_unreachable": counts.errors.unreachable,
            "errors_timed_out": counts.errors.timed_out,
            "errors_throttled": counts.errors.throttled,
            "errors_no_credentials": counts.errors.no_credentials,
            "errors_access_denied": counts.errors.access_denied,
            "errors_key_unusable": counts.errors.key_unusable,
            "errors_not_found": counts.errors.not_found,
            "errors_untrusted": counts.errors.untrusted,
            "errors_other": counts.errors.other,
            "cancelled": counts.cancelled,
            "not_tried": counts.not_tried,
            "retries": counts.retries,
            "throttled_attempts": counts.throttled_attempts,
            "stale_serves": counts.stale_serves,
            "latency_ms": counts.latency_sum.as_secs_f64() * 1e3,
            "max_latency_ms": counts.latency_max.as_secs_f64() * 1e3,
            "latency_bounds_ms": BUCKETS_MS,
            "latency_buckets": counts.latency_buckets,
            "stats_reset": epoch_seconds(since),
            "denied_since": counts.denied_since.map(epoch_seconds),
        })
    }));
}

/// An array of rows for the view `env_stat_cache`.
fn stat_cache(_call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let (now, limits) = (Instant::now(), settings::limits());
    let mut rows = Vec::new();
    let [sealing, opening] = session::cache_counts();
    session::for_each_cached(|named, cached: &CachedKey| {
        let data_key = cached.data_key();
        let counts = if named.is_some() { sealing } else { opening };
        rows.push(json!({
            "purpose": if named.is_some() { "encrypt" } else { "decrypt" },
            "named_key_id": named,
            "key_id": data_key.key_id(),
            "dek_id": format!("\\x{}", hex(&data_key.commitment().0)),
            "encryption_context": data_key.context().pairs().collect::<std::collections::BTreeMap<_, _>>(),
            "uses": cached.uses(),
            "age_seconds": cached.age(now).as_secs_f64(),
            "ttl_seconds": cached.ttl(limits.ttl).saturating_sub(cached.age(now)).as_secs_f64(),
            "state": match cached.consent(now, &limits) {
                Consent::Fresh | Consent::RefreshDue => "fresh",
                Consent::Stale | Consent::StaleRefreshDue => "stale",
                Consent::Expired => "expired",
            },
            "cache_hits": counts.hits,
            "cache_misses": counts.misses,
            "cache_evictions": counts.evictions,
            "cache_evicted_needed": counts.evicted_needed,
        }));
    });
    jsonb_datum(&Value::Array(rows).to_string()).map(Some)
}

/// An array with one row for the view `env_stat_broker`, or none if no broker runs.
fn stat_broker(_call: &FunctionCall) -> Result<Option<Datum>, Error> {
    // The configuration file's, which the broker follows, too.
    let capacity = settings::broker_config().memory;
    let row = |status: Status, responds: bool| {
        json!({
            "pid": status.pid,
            "started": epoch_seconds(status.started),
            "requests": status.requests,
            "answered_from_memory": status.answered_from_memory,
            "connections": status.connections,
            "data_keys": status.data_keys,
            "current_data_keys": status.current_data_keys,
            "unwrapped_ahead": status.unwrapped_ahead,
            "open_breakers": status.open_breakers,
            "waiting_calls": status.waiting_calls,
            "memory_bytes": status.memory,
            "responds": responds,
            "data_key_bytes": status.data_key_bytes,
            "cache_hits": status.cache_hits,
            "cache_misses": status.cache_misses,
            "evictions": status.evictions,
            "evicted_needed": status.evicted_needed,
            "data_key_capacity_bytes": capacity,
        })
    };
    let rows = match broker::watch_running(&Command::Status) {
        Ok(Some(Response::Status(status))) => vec![row(status, true)],
        Ok(_) => Vec::new(),
        // Whoever watches the server wants the rest of what he asked for.
        Err(error) => {
            warn(&error.to_string(), "Its row is that from before.".into(), BROKER_HINT);
            last_words::read().map(|(status, _)| row(status, false)).into_iter().collect()
        }
    };
    jsonb_datum(&Value::Array(rows).to_string()).map(Some)
}

/// An array of rows for the view `env_stat_role`.
fn stat_role(_call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let row = |of: RoleCalls| {
        let [generates, decrypts, rewraps] = of.calls;
        json!({
            "database_oid": of.owner.map(|(database, _)| database),
            "role_oid": of.owner.map(|(_, role)| role),
            "generate_data_key": generates,
            "decrypt": decrypts,
            "re_encrypt": rewraps,
            "errors": of.errors,
            "refused": of.refused,
            "stale_serves": of.stale_serves,
        })
    };
    let rows = shared_counters::role_calls().map_err(Error::SharedCounters)?;
    jsonb_datum(&Value::Array(rows.into_iter().map(row).collect()).to_string()).map(Some)
}

/// An array with the one row of the view `env_stat_server`. No broker is asked.
fn stat_server(_call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let overview = shared_counters::overview().map_err(Error::SharedCounters)?;
    let row = json!({
        "broker_avoided_seconds": overview.broker_avoided_seconds,
        "sessions_on_their_own": overview.sessions_on_their_own,
        "own_calls": overview.own_calls,
        "serving_stale": overview.serving_stale,
        "last_stale": overview.last_stale,
        "damaged_values": overview.damaged,
        "cache_hits": overview.cache.hits,
        "cache_misses": overview.cache.misses,
        "cache_evictions": overview.cache.evictions,
        "cache_evicted_needed": overview.cache.evicted_needed,
        "fullest_cache": overview.fullest_cache,
    });
    jsonb_datum(&json!([row]).to_string()).map(Some)
}

fn stat_reset(_call: &FunctionCall) -> Result<Option<Datum>, Error> {
    if let Some(statistics) = own_thread::statistics() {
        statistics.reset();
    }
    broker::send_to_running(&Command::ResetStatistics)?;
    Ok(Some(Datum::null()))
}

fn kms_calls(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let columns = session::kms_calls().map(|calls| Datum::from(calls as i64));
    Ok(Some(row_datum(call, &columns)))
}

fn epoch_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
