//! What the sessions of the soak test share, and what they leave.
//!
//! Each row says in plain columns what its value must open to, so that every session can check the rows of all.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64};
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant};

use postgres::Client;

use testkit::fixture::Fixture;

/// In every plaintext of some length, again and again, and nowhere else.
pub const MARKER: &str = "s0ak-plaintext";

/// Makes the table.
pub const TABLE: &str = "CREATE TABLE soak (id bigint PRIMARY KEY, seed bigint, bytes int, value bytea NOT NULL)";

/// What all sessions share.
pub struct Soak {
    /// The server, the proxy and the first key.
    pub fixture: Fixture,
    /// The keys of the rows.
    pub keys: Vec<String>,
    /// Held for writing, it keeps the sessions idle, each between two steps.
    pub gate: RwLock<()>,
    /// The faults are over: read everything again.
    pub over: AtomicBool,
    /// One for each session.
    pub seats: Vec<Seat>,
    /// The SQLSTATEs of the errors so far.
    pub seen: Mutex<BTreeSet<String>>,
}

/// What others may know of a session.
#[derive(Default)]
pub struct Seat {
    /// The process id of its backend; 0 before there is one.
    pub pid: AtomicI32,
    pub(crate) rows: AtomicI64,
}

/// How sessions differ.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// A new connection now and then; never cancelled, since its process id changes.
    pub reconnects: bool,
    /// Some of its statements are cancelled by another session.
    pub cancelled: bool,
    /// Its statements have a time limit that is shorter than a KMS call that hangs.
    pub timeout: bool,
}

impl Habits {
    /// Of 20 sessions 4 reconnect, 4 have a time limit, 4 are cancelled.
    pub fn of(number: usize) -> Self {
        Self { reconnects: number.is_multiple_of(5), timeout: number % 5 == 1, cancelled: number % 5 == 2 }
    }
}

/// An error of the server.
pub struct Mishap {
    /// When its statement began.
    pub began: Instant,
    /// When it was over.
    pub ended: Instant,
    /// Its SQLSTATE.
    pub sqlstate: String,
}

/// What a session did. Its last connection is still open.
pub struct Outcome {
    /// The last connection.
    pub client: Client,
    /// All statements, those that failed included.
    pub statements: usize,
    /// Rows written and committed, those written again included.
    pub writes: usize,
    /// Rows that it left.
    pub rows: usize,
    /// How many connections it made.
    pub connections: usize,
    /// The longest statement.
    pub longest: Duration,
    /// How long after the end of the faults it could write and read again.
    pub recovery: Duration,
    /// All errors.
    pub mishaps: Vec<Mishap>,
}

/// The plaintext of a row: every piece of it has the marker, and no two pieces are the same.
pub fn plaintext(seed: i64, bytes: i32) -> String {
    let bytes = usize::try_from(bytes).expect("not negative");
    let mut text = String::with_capacity(bytes + 64);
    for piece in 0.. {
        if text.len() >= bytes {
            break;
        }
        write!(text, "{MARKER} {seed} {piece} \u{e4}\u{20ac}\u{1f511} ").expect("a String takes everything");
    }
    text.truncate(text.floor_char_boundary(bytes));
    text
}
