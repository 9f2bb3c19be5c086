//! This backend's data keys: drives `envelope_core::policy`, which says when one may be used and what to ask before. The session
//! is borrowed to look up and to tell, never while KMS is asked.
//!
//! - `surroundings`: what the policy sees of the backend
//! - `opening`: the data key that opens a value
//! - `unwrapping`: data keys that no value waits for yet
//! - `page_ahead`: the data keys that a scan is about to need
//! - `sealing`: the data key that seals a value
//! - `asking`: asks what the policy wants to know, and tells it the answers
//! - `named_keys`: keys that are named and granted in SQL, and who may use them
//! - `known_keys`: the named keys of the database
//! - `index_keys`: the versions of index keys, and the data keys that they are
//! - `audit`: the line in the log about what a statement opened and sealed
//! - `release`: whether library and SQL objects are of one release
//! - `rewrap`: data keys that are rewrapped, once each
//! - `pipeline`: many requests to KMS at a time
//! - `idle`: what is wiped while the session waits for its client
//! - `proof`: whether the key provider opens a wrapped data key

mod asking;
mod audit;
mod idle;
pub mod index_keys;
mod known_keys;
pub mod named_keys;
mod opening;
mod page_ahead;
pub mod pipeline;
pub mod proof;
mod release;
pub mod rewrap;
mod sealing;
mod surroundings;
mod unwrapping;

use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};

use envelope_core::cache::CachedKey;
use envelope_core::cache::bounded::CacheCounts;
use envelope_core::cipher::random::Nonces;
use envelope_core::format::{Head, NONCE_BYTES};
use envelope_core::request::Calls;

pub use self::asking::{finish, start};
pub use self::opening::{opening_key, opening_key_again, opening_key_at_hand};
pub use self::sealing::{rotate_dek, sealing};
use self::surroundings::Here;
pub use self::unwrapping::Unwrapping;
use crate::ask::{Pending, shared_counters};
use crate::error::Error;
use crate::pg::backend::{process_id, server_start, statement_start};
use crate::pg::exit::at_exit;
use crate::pg::registers;
use crate::pg::settings;
use crate::pg::statement_end;

type Policy = envelope_core::policy::Policy<Pending>;

struct Session {
    /// The process that made it: its keys and nonces are for no other.
    process: i32,
    policy: Policy,
    nonces: Nonces,
    /// What all processes were told of its cache.
    told: CacheCounts,
}

thread_local! {
    static SESSION: RefCell<Option<Session>> = const { RefCell::new(None) };
}

impl Session {
    fn start(process: i32) -> Self {
        // Wipes what the backend kept secret.
        at_exit(|| {
            tell_cache_use();
            drop(SESSION.take());
        });
        Self {
            process,
            policy: Policy::new(&Here, RandomState::new().hash_one(process), server_start().cast_unsigned()),
            nonces: Nonces::new(),
            told: CacheCounts::default(),
        }
    }

    /// Fills `random` for one nonce.
    fn draw(&mut self, random: &mut [u8; NONCE_BYTES]) -> Result<(), Error> {
        self.nonces.draw(statement_start(), random).map_err(|_| Error::NoRandomness)
    }
}

fn with_session<T>(use_session: impl FnOnce(&mut Session) -> T) -> T {
    statement_end::clear_registers();
    SESSION.with_borrow_mut(|session| {
        let process = process_id();
        match session {
            Some(session) if session.process == process => use_session(session),
            _ => use_session(session.insert(Session::start(process))),
        }
    })
}

fn with_policy<T>(use_policy: impl FnOnce(&mut Policy) -> T) -> T {
    with_session(|session| use_policy(&mut session.policy))
}

/// What the session has ready, if there is nothing else to do: mostly so, and then it is borrowed once for a value.
#[inline]
fn quickly<T>(find: impl FnOnce(&mut Session) -> Option<T>) -> Option<T> {
    with_session(|session| if session.policy.has_refreshes() { None } else { find(session) })
}

/// Checks a key against the list that is in force now.
///
/// # Errors
/// [`Error::KeyNotAllowed`].
pub fn check_allowed(key_id: &str) -> Result<(), Error> {
    let checked = with_policy(|policy| policy.check_allowed(key_id, &Here));
    checked.map_err(Error::from).inspect_err(audit::note)
}

/// Whether the session has the data key of a value, and may use it without asking.
pub fn is_warm(head: &Head<'_>) -> bool {
    with_policy(|policy| policy.is_warm(head, &Here))
}

/// Calls `read` with the data keys of the session: the key id that statements name if it seals new values, and the data key.
pub fn for_each_cached(read: impl FnMut(Option<&str>, &CachedKey)) {
    with_policy(|policy| policy.for_each_cached(&Here, read));
}

/// What has happened to the session's data keys for sealing, and to those for opening.
pub fn cache_counts() -> [CacheCounts; 2] {
    with_policy(|policy| policy.cache_counts())
}

/// Adds what has happened to the session's data keys since the last time to what all sessions of the server count.
fn tell_cache_use() {
    SESSION.with(|session| {
        // In use: the next time.
        let Ok(mut session) = session.try_borrow_mut() else { return };
        let Some(Session { policy, told, .. }) = session.as_mut() else { return };
        let [sealing, opening] = policy.cache_counts();
        let counts = sealing + opening;
        shared_counters::count_cache_use(counts - *told, policy.cache_fill(&settings::limits()));
        *told = counts;
    });
}

/// The KMS calls of the current statement, of the current transaction and of the session.
pub fn kms_calls() -> [u64; 3] {
    with_policy(|policy| policy.budget().calls(&Here))
}

/// Which KMS calls the statement may still cause.
pub fn kms_calls_allowed() -> Calls {
    with_policy(|policy| policy.budget().allowed(&Here))
}

/// Has all processes of the server forget all data keys, and says how many this session had.
///
/// # Errors
/// [`Error::SharedCounters`].
pub fn flush_everywhere() -> Result<usize, Error> {
    // Its own at any rate.
    let flushed = flush();
    shared_counters::flush().map_err(Error::SharedCounters)?;
    Ok(flushed)
}

/// Forgets the session's data keys, and says how many there were.
pub fn flush() -> usize {
    idle::wipe_stack_at_end();
    registers::clear();
    with_policy(Policy::flush)
}
