//! One session of the soak test: it writes and reads encrypted rows, remembers what it committed, and notes each error.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, Error, Row, Statement};

use crate::soak::{Habits, MARKER, Mishap, Outcome, Soak, plaintext};
use testkit::failure::Failure;
use testkit::random::Random;
use testkit::session::Session;
use testkit::waiting::is_reached_within;

const WRITE: &str =
    "INSERT INTO soak VALUES ($1, $2, $3, env_encrypt($4::text, $5, $6::text::jsonb, 'row ' || $1::bigint))
    ON CONFLICT (id) DO UPDATE SET seed = excluded.seed, bytes = excluded.bytes, value = excluded.value";
const READ: &str = "SELECT id, seed, bytes, env_decrypt(value, 'row ' || id) FROM soak WHERE id = $1";
const SCAN: &str =
    "SELECT id, seed, bytes, env_decrypt(value, 'row ' || id) FROM soak WHERE id >= $1 ORDER BY id LIMIT 10";

const CONTEXTS: [&str; 4] =
    ["{}", r#"{"table": "soak"}"#, r#"{"table": "soak", "tenant": "1"}"#, r#"{"table": "soak", "tenant": "2"}"#];

/// Bytes of the plaintexts, the usual ones more often.
const SIZES: [i32; 16] = [0, 0, 1, 17, 17, 17, 40, 40, 300, 300, 300, 2_000, 2_000, 8_000, 8_000, 100_000];

const ROWS_PER_SESSION: i64 = 1_000_000;

/// In the steps of a session that reconnects.
const STEPS_PER_CONNECTION: u64 = 40;

/// Shorter than one attempt of a KMS call that hangs, so that it and not the time limit of the call ends the statement.
const STATEMENT_TIMEOUT: &str = "-c statement_timeout=200ms";

/// How long the whole of a session may take to work again, and then to read all that it wrote.
const PATIENCE: Duration = Duration::from_secs(90);

struct Connection {
    client: Client,
    write: Statement,
    read: Statement,
    scan: Statement,
}

struct Worker<'a> {
    soak: &'a Soak,
    number: usize,
    habits: Habits,
    random: Random,
    connection: Connection,
    next_row: i64,
    /// What each committed row must open to: its seed and its bytes.
    committed: BTreeMap<i64, (i64, i32)>,
    statements: usize,
    writes: usize,
    connections: usize,
    longest: Duration,
    mishaps: Vec<Mishap>,
    last_failure: Option<Failure>,
}

/// Runs a session until the faults are over, then makes sure that it works again and that all it wrote is there.
pub fn run(soak: &Soak, number: usize) -> Outcome {
    let habits = Habits::of(number);
    let mut worker = Worker {
        soak,
        number,
        habits,
        random: Random::new(number as u64 + 1),
        connection: Connection::open(soak, number, habits),
        next_row: 0,
        committed: BTreeMap::new(),
        statements: 0,
        writes: 0,
        connections: 1,
        longest: Duration::ZERO,
        mishaps: Vec::new(),
        last_failure: None,
    };
    let mut steps = 0;
    while !soak.over.load(Relaxed) {
        {
            let _open = soak.gate.read().unwrap_or_else(PoisonError::into_inner);
            steps += 1;
            if habits.reconnects && steps % STEPS_PER_CONNECTION == 0 {
                worker.connection = Connection::open(soak, number, habits);
                worker.connections += 1;
            }
            worker.step();
        }
        thread::sleep(Duration::from_millis(worker.random.below(30)));
    }
    worker.finish()
}

impl Connection {
    fn open(soak: &Soak, number: usize, habits: Habits) -> Self {
        let options = if habits.timeout { STATEMENT_TIMEOUT } else { "" };
        let connected = soak.fixture.cluster.try_connect_with("postgres", "postgres", options);
        let mut client = connected.unwrap_or_else(|error| panic!("session {number} cannot connect: {error:?}"));
        let mut prepare = |statement| client.prepare(statement).expect("the statement can be prepared");
        let (write, read, scan) = (prepare(WRITE), prepare(READ), prepare(SCAN));
        // Last: from here on it may be cancelled.
        soak.seats[number].pid.store(client.backend(), Relaxed);
        Self { client, write, read, scan }
    }
}

impl Worker<'_> {
    fn step(&mut self) {
        let worked = match self.random.below(100) {
            0..40 => self.write_one(),
            40..55 => self.write_in_a_transaction(),
            55..90 => self.read_one(),
            90..98 => self.scan(),
            _ => self.attempt(|on| on.client.batch_execute("SELECT env_cache_flush(random() < 0.3)")).is_some(),
        };
        if !worked {
            // As a client that is not quite careless.
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn write_one(&mut self) -> bool {
        let written = self.write();
        self.remember(written)
    }

    /// Rows in one transaction. Some are behind a savepoint, so that their failure does not end the transaction.
    fn write_in_a_transaction(&mut self) -> bool {
        if self.say("BEGIN").is_none() {
            return self.roll_back();
        }
        let mut written = Vec::new();
        for _ in 0..=self.random.below(4) {
            let savepoint = self.random.below(2) == 0;
            if savepoint && self.say("SAVEPOINT before").is_none() {
                return self.roll_back();
            }
            match self.write() {
                Some(row) => written.push(row),
                None if savepoint && self.say("ROLLBACK TO before").is_some() => {}
                None => return self.roll_back(),
            }
        }
        if self.random.below(5) == 0 || self.say("COMMIT").is_none() {
            return self.roll_back();
        }
        written.into_iter().for_each(|row| _ = self.remember(Some(row)));
        true
    }

    /// Ends the transaction, if there still is one, even if that is cancelled a few times.
    fn roll_back(&mut self) -> bool {
        for _ in 0..10 {
            if self.say("ROLLBACK").is_some() {
                return false;
            }
        }
        panic!("session {} cannot roll back", self.number);
    }

    /// Writes a row, a new one or one of its own once more.
    fn write(&mut self) -> Option<(i64, (i64, i32))> {
        let mut id = self.number as i64 * ROWS_PER_SESSION + self.next_row;
        if self.random.below(6) == 0
            && let Some(known) = self.own_row()
        {
            id = known;
        } else {
            self.next_row += 1;
        }
        let (seed, bytes) = (self.random.number() as i64, SIZES[self.random.below(SIZES.len())]);
        let text = plaintext(seed, bytes);
        let soak = self.soak;
        let key = &soak.keys[self.random.below(soak.keys.len())];
        let context = CONTEXTS[self.random.below(CONTEXTS.len())];
        self.attempt(|on| on.client.execute(&on.write, &[&id, &seed, &bytes, &text, key, &context]))?;
        Some((id, (seed, bytes)))
    }

    fn remember(&mut self, written: Option<(i64, (i64, i32))>) -> bool {
        let Some((id, row)) = written else {
            return false;
        };
        self.committed.insert(id, row);
        self.writes += 1;
        self.soak.seats[self.number].rows.store(self.next_row, Relaxed);
        true
    }

    fn read_one(&mut self) -> bool {
        // Every other time one of its own, whose content it knows.
        let id = if self.random.below(2) == 0 { self.own_row() } else { None };
        let id = id.unwrap_or_else(|| self.any_row());
        let Some(row) = self.attempt(|on| on.client.query_opt(&on.read, &[&id])) else {
            return false;
        };
        self.check(id, row.as_ref());
        true
    }

    fn scan(&mut self) -> bool {
        let from = self.any_row();
        let rows = self.attempt(|on| on.client.query(&on.scan, &[&from]));
        rows.iter().flatten().for_each(|row| self.check(row.get(0), Some(row)));
        rows.is_some()
    }

    /// A row is as its plain columns say; one of its own also is as it was written.
    fn check(&self, id: i64, row: Option<&Row>) {
        let found: Option<(i64, i32)> = row.map(|row| (row.get(1), row.get(2)));
        if id / ROWS_PER_SESSION == self.number as i64 {
            assert_eq!(found, self.committed.get(&id).copied(), "session {}, row {id}", self.number);
        }
        let Some((row, (seed, bytes))) = row.zip(found) else {
            return;
        };
        // Not assert_eq: 100 kB of text say nothing.
        assert!(row.get::<_, &str>(3) == plaintext(seed, bytes), "row {id} of {bytes} bytes opens to something else");
    }

    fn own_row(&mut self) -> Option<i64> {
        let rows = self.committed.len();
        if rows == 0 {
            return None;
        }
        let from = self.number as i64 * ROWS_PER_SESSION + self.random.below(self.next_row);
        self.committed.range(from..).next().or(self.committed.first_key_value()).map(|(id, _)| *id)
    }

    /// A row of whatever session. It may be missing: not every transaction is committed.
    fn any_row(&mut self) -> i64 {
        let session = self.random.below(self.soak.seats.len());
        let rows = self.soak.seats[session].rows.load(Relaxed).max(1);
        session as i64 * ROWS_PER_SESSION + self.random.below(rows)
    }

    fn say(&mut self, statement: &str) -> Option<()> {
        self.attempt(|on| on.client.batch_execute(statement))
    }

    /// Runs a statement and notes how it went.
    fn attempt<T>(&mut self, statement: impl FnOnce(&mut Connection) -> Result<T, Error>) -> Option<T> {
        let began = Instant::now();
        let result = statement(&mut self.connection);
        let ended = Instant::now();
        self.statements += 1;
        self.longest = self.longest.max(ended - began);
        result.map_err(|error| self.note(began, ended, &error)).ok()
    }

    /// Notes an error that this session may see. Whether a fault explains it is for the test to say.
    fn note(&mut self, began: Instant, ended: Instant, error: &Error) {
        let Some(failure) = Failure::of(error) else {
            panic!("session {} lost its connection: {error:?}", self.number);
        };
        assert!(!failure.text().contains(MARKER), "a plaintext is in an error message");
        let expected = match failure.sqlstate.as_str() {
            "58000" | "53400" | "42501" | "55000" | "42704" | "22000" => true,
            "57014" if failure.message.ends_with("statement timeout") => self.habits.timeout,
            "57014" => self.habits.cancelled && failure.message.ends_with("user request"),
            _ => false,
        };
        assert!(expected, "session {} with {:?}: {failure:?}", self.number, self.habits);
        self.soak.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(failure.sqlstate.clone());
        self.mishaps.push(Mishap { began, ended, sqlstate: failure.sqlstate.clone() });
        self.last_failure = Some(failure);
    }

    /// The faults are over.
    fn finish(mut self) -> Outcome {
        let started = Instant::now();
        self.until("it can write", Worker::write_one);
        let last = self.own_row().expect("a row was just written");
        self.until("it can read", |worker| worker.read_back(last));
        let recovery = started.elapsed();
        let ids: Vec<_> = self.committed.keys().copied().collect();
        for id in ids {
            self.until("a row can be read", |worker| worker.read_back(id));
        }
        Outcome {
            client: self.connection.client,
            statements: self.statements,
            writes: self.writes,
            rows: self.committed.len(),
            connections: self.connections,
            longest: self.longest,
            recovery,
            mishaps: self.mishaps,
        }
    }

    fn read_back(&mut self, id: i64) -> bool {
        let row = self.attempt(|on| on.client.query_opt(&on.read, &[&id]));
        row.is_some_and(|row| {
            self.check(id, row.as_ref());
            true
        })
    }

    /// Tries until something succeeds: the breakers have to close, and a statement may be cancelled.
    fn until(&mut self, what: &str, mut reached: impl FnMut(&mut Self) -> bool) {
        let is_reached = is_reached_within(PATIENCE, || reached(self));
        let (number, last) = (self.number, &self.last_failure);
        assert!(is_reached, "session {number} waited in vain until {what}: {last:?}");
    }
}
