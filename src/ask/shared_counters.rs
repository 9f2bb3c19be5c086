//! Counters that all processes of the server see: a small file that each of them maps. It stands beside the broker's socket
//! and holds nothing that matters after a restart, and nothing secret.
//!
//! Somebody may remove the file while processes have it mapped. Whoever tells them something, asks for a data key, or looks once
//! a second for what to wipe, then maps the one that stands in its place; and takes it for a flush.

mod usage;

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use envelope_broker::server::Signals;
use envelope_core::policy::{BLIND_TIME, Epochs};
use envelope_kms::Limiter;
use rustix::fd::OwnedFd;
use rustix::fs::{FallocateFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

pub use self::usage::{
    RoleCalls, count_cache_use, count_call, count_damaged, count_own_call, damaged, note_stale, overview, role_calls,
};
use crate::pg::shared_memory::{self, BYTES, Current, FileIdentity};
use crate::pg::{backend, clock};

/// In the data directory's directory for temporary statistics, which only the server's user can write and which base backups
/// leave out. Processes of PostgreSQL have the data directory as their working directory.
const PATH: &str = "pg_stat_tmp/envelope_pg.1.shared";
/// The same line about the broker is not written again for so long, by whichever session.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Where many data keys are asked for, the file is looked for this often.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// A broker that failed a session is left alone by all for so long.
const AVOIDANCE: Duration = Duration::from_secs(30);

/// What stands in the file. Zero is where everything starts, but for the flushes.
struct Counters {
    file: FileIdentity,
    /// Flushes of all data keys. Starts from the time, so that no two files have the same.
    flushes: &'static AtomicU64,
    /// Replacements of current data keys.
    replacements: &'static AtomicU64,
    /// Until when the broker is avoided, in milliseconds since 1970.
    avoided_until: &'static AtomicU64,
    /// When a session last wrote to the log that it goes on without the broker, likewise.
    logged: &'static AtomicU64,
    /// Replacements of current data keys that the broker could not be told of.
    retirements: &'static AtomicU64,
    /// Times that all processes were to make new clients for KMS.
    reconnects: &'static AtomicU64,
    /// Values that env_try_decrypt could not open.
    damaged: &'static AtomicU64,
    /// When a data key last served past its time, in milliseconds since 1970.
    stale_at: &'static AtomicU64,
    /// Calls that sessions made without the broker.
    own_calls: &'static AtomicU64,
    /// What the limit on calls counts with: see [`envelope_kms::limiter`].
    calls_due: &'static AtomicU64,
    /// What has happened to the data keys of all sessions: `CacheCounts`.
    cache: &'static [AtomicU64],
    /// How much of its bounds the fullest cache of a session had, in thousandths, and when, in seconds since 1970.
    fullest_cache: &'static AtomicU64,
    /// Sessions that called KMS themselves: process id, and seconds since 1970.
    on_their_own: &'static [AtomicU64],
    /// KMS calls by database and role, each [`ROLE_WORDS`] long; the last ones are for all further roles.
    roles: &'static [AtomicU64],
}

/// Where the counts of the sessions' caches begin.
const CACHE_AT: usize = 12;
/// So many there are.
const CACHE_WORDS: usize = 4;
/// Where the counts by role begin.
const ROLES_AT: usize = 64;
/// Where they end, and the sessions on their own begin.
const ON_THEIR_OWN_AT: usize = 512;
/// So many sessions are told apart, at most.
const MAX_ON_THEIR_OWN: usize = 512;
/// Database and role, and [`RoleCalls`].
const ROLE_WORDS: usize = 7;
static COUNTERS: Current<Counters> = Current::none();

thread_local! {
    /// When the file was last looked for.
    static LOOKED: Cell<Option<Instant>> = const { Cell::new(None) };
    /// When it was last tried in vain, and why.
    static FAILED: Cell<Option<(Instant, Errno)>> = const { Cell::new(None) };
}

/// Why the file cannot be used, if so: flushes and replacements by other sessions are then not seen.
pub fn problem() -> Option<String> {
    let usable = with_counters(|_| ()).and_then(|()| follow_file_soon());
    usable.err().map(|error| format!("{PATH}: {error}"))
}

/// What has happened up to now; `None` without the file: see [`problem`].
#[inline]
pub fn epochs() -> Option<Epochs> {
    with_counters(|counters| Epochs {
        flushes: counters.flushes.load(Ordering::SeqCst),
        replacements: counters.replacements.load(Ordering::SeqCst),
    })
    .ok()
}

/// Checks that all processes can be told something.
///
/// # Errors
/// Why they cannot.
pub fn check() -> io::Result<()> {
    with_counters(|_| ())?;
    follow_file().map(drop)
}

/// Whether another file, or none, stands where the mapped one stood. To be called in signal handlers, too.
pub fn is_file_replaced() -> bool {
    COUNTERS.get().is_some_and(|counters| counters.file.is_gone_from(PATH))
}

/// Has this process, and those that have the same file mapped, drop their data keys. To be called in signal handlers, too.
pub fn flush_own_file() {
    if let Some(counters) = COUNTERS.get() {
        counters.flushes.fetch_add(1, Ordering::SeqCst);
    }
}

/// Maps the file that stands in the place of the mapped one, if so; whether it does.
///
/// # Errors
/// Why it cannot be mapped.
pub fn follow_file() -> io::Result<bool> {
    let is_replaced = is_file_replaced();
    if is_replaced {
        COUNTERS.set(map()?);
    }
    Ok(is_replaced)
}

/// As [`follow_file`], but for a system call each time: the file was looked for just now, if not this time.
fn follow_file_soon() -> io::Result<()> {
    let now = clock::now();
    if LOOKED.get().is_some_and(|looked| now.saturating_duration_since(looked) < LOOK_AGAIN) {
        return Ok(());
    }
    follow_file()?;
    LOOKED.set(Some(now));
    Ok(())
}

/// Counts one more for all processes: also for those that have a file mapped that was removed, as this one has perhaps.
fn tell(counter: impl Fn(&Counters) -> &AtomicU64) -> io::Result<()> {
    let count = || with_counters(|counters| counter(counters).fetch_add(1, Ordering::SeqCst)).map(drop);
    count()?;
    if follow_file()? { count() } else { Ok(()) }
}

/// Has all processes drop their data keys before they serve another value.
///
/// # Errors
/// If they cannot be told.
pub fn flush() -> io::Result<()> {
    tell(|counters| counters.flushes)
}

/// Has all processes ask for the current data key before they seal another value.
///
/// # Errors
/// If they cannot be told.
pub fn announce_replacement() -> io::Result<()> {
    tell(|counters| counters.replacements)
}

/// Has the broker make all next data keys anew, since it could not be told of a replacement.
///
/// # Errors
/// If it cannot be told this way either.
pub fn retire() -> io::Result<()> {
    tell(|counters| counters.retirements)
}

/// Has all processes make new clients for KMS before their next call: connections, credentials, certificates, breakers.
///
/// # Errors
/// If they cannot be told.
pub fn reconnect() -> io::Result<()> {
    tell(|counters| counters.reconnects)
}

/// How often [`reconnect`] was called; 0 without the file.
pub fn reconnects() -> u64 {
    with_counters(|counters| counters.reconnects.load(Ordering::SeqCst)).unwrap_or_default()
}

/// The limit on calls that all processes of the server have in common; without the file one of this process alone.
pub fn limiter() -> Limiter {
    with_counters(|counters| Limiter::shared(counters.calls_due)).unwrap_or_default()
}

/// What the broker is told without a call. It does not listen without the file.
pub fn signals() -> Signals {
    // The next time, if it cannot be mapped now.
    let _ = follow_file_soon();
    with_counters(|counters| Signals {
        flushes: counters.flushes.load(Ordering::SeqCst),
        retirements: counters.retirements.load(Ordering::SeqCst),
        reconnects: counters.reconnects.load(Ordering::SeqCst),
    })
    .unwrap_or_default()
}

/// Whether to go on without the broker for now. Without the file there is none: it could not be told to flush.
pub fn is_broker_avoided() -> bool {
    let now = now_ms();
    // The clock may have been set back meanwhile.
    with_counters(|counters| counters.avoided_until.load(Ordering::Relaxed))
        .map_or(true, |until| (now..=now + AVOIDANCE.as_millis() as u64).contains(&until))
}

/// Has all sessions go on without the broker for a while.
pub fn avoid_broker() {
    let until = now_ms() + AVOIDANCE.as_millis() as u64;
    let _ = with_counters(|counters| counters.avoided_until.store(until, Ordering::Relaxed));
}

/// Has all sessions use the broker again.
pub fn trust_broker() {
    let _ = with_counters(|counters| counters.avoided_until.store(0, Ordering::Relaxed));
}

/// Whether to write now that a session goes on without the broker: true for one session at a time.
pub fn may_log() -> bool {
    let now = now_ms();
    with_counters(|counters| {
        let last = counters.logged.load(Ordering::Relaxed);
        let is_due = now.abs_diff(last) >= LOG_INTERVAL.as_millis() as u64;
        is_due && counters.logged.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    })
    .unwrap_or(true)
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

fn with_counters<T>(use_counters: impl FnOnce(&Counters) -> T) -> io::Result<T> {
    let counters = match COUNTERS.get() {
        Some(counters) => counters,
        None => map_now_and_then()?,
    };
    Ok(use_counters(counters))
}

#[cold]
fn map_now_and_then() -> Result<&'static Counters, Errno> {
    // As long as a process without the counters may keep a data key, and not for each value.
    if let Some((failed, error)) = FAILED.get()
        && failed.elapsed() < BLIND_TIME
    {
        return Err(error);
    }
    let mapped = map().map(|counters| COUNTERS.set(counters));
    FAILED.set(mapped.err().map(|error| (Instant::now(), error)));
    mapped
}

/// Opens a file for the server's user only, or makes it.
///
/// # Errors
/// Why it cannot be had.
pub fn open_own(path: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let open = || rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR);
    match open() {
        // Some clean up too much: PostgreSQL itself does not use the directory since release 15.
        Err(Errno::NOENT) => {
            let directory = path.rsplit_once('/').map_or(path, |(directory, _)| directory);
            match rustix::fs::mkdir(directory, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => open(),
                Err(error) => Err(error),
            }
        }
        opened => opened,
    }
}

fn map() -> Result<Counters, Errno> {
    let file = open_own(PATH)?;
    allocate(&file)?;
    let identity = FileIdentity::of(&file)?;
    let words = shared_memory::map(&file)?;
    let [flushes, replacements, avoided_until, logged, retirements, reconnects, damaged, server, ..] = words;
    let [_, _, _, _, _, _, _, _, stale_at, own_calls, calls_due, fullest_cache, ..] = words;
    let cache = &words[CACHE_AT..CACHE_AT + CACHE_WORDS];
    let roles = &words[ROLES_AT..ON_THEIR_OWN_AT];
    let on_their_own = &words[ON_THEIR_OWN_AT..ON_THEIR_OWN_AT + MAX_ON_THEIR_OWN];
    // What another run of the server has left there says nothing about this one; counts that processes compare stay.
    let (before, now) = (server.load(Ordering::SeqCst), backend::server_start().cast_unsigned());
    if before != now && server.compare_exchange(before, now, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
        let counts = [avoided_until, logged, damaged, stale_at, own_calls, calls_due, fullest_cache];
        let counts = counts.into_iter().chain(cache).chain(roles).chain(on_their_own);
        counts.for_each(|word| word.store(0, Ordering::SeqCst));
    }
    let _ = flushes.compare_exchange(0, now_ms() * 1_000, Ordering::SeqCst, Ordering::SeqCst);
    Ok(Counters {
        file: identity,
        flushes,
        replacements,
        avoided_until,
        logged,
        retirements,
        reconnects,
        damaged,
        stale_at,
        own_calls,
        calls_due,
        cache,
        fullest_cache,
        on_their_own,
        roles,
    })
}

/// Makes sure that the file has its bytes on the disk. Into a hole, which `ftruncate` makes, nothing can be written when the
/// disk is full, and a process that has it mapped gets SIGBUS. Whoever has mapped it keeps what he sees.
fn allocate(file: &OwnedFd) -> Result<(), Errno> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, BYTES as u64) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
        result => return result,
    }
    // The file system does not know how. One process at a time, so that nobody writes over what another one has counted.
    rustix::fs::flock(file, FlockOperation::LockExclusive)?;
    let present = rustix::fs::fstat(file)?.st_size as usize;
    if present < BYTES {
        let zeros = vec![0; BYTES - present];
        let written = rustix::io::pwrite(file, &zeros, present as u64)?;
        return if written == zeros.len() { Ok(()) } else { Err(Errno::NOSPC) };
    }
    Ok(())
}
