//! A backend, and the CPU time it has used.

use std::fs;
use std::time::Instant;

use testkit::{Client, Fixture, Session as _};

/// A connection whose backend does all its work itself.
pub struct Session {
    pub client: Client,
    pub pid: i32,
}

impl Session {
    pub fn start(fixture: &Fixture) -> Self {
        let mut client = fixture.connect();
        client.run("SET max_parallel_workers_per_gather = 0");
        let pid = client.backend();
        Self { client, pid }
    }

    /// Freezes and analyzes a table, so that no measurement has that to do.
    pub fn vacuum(&mut self, table: &str) {
        self.client.run(&format!("VACUUM (FREEZE, ANALYZE) {table}"));
    }

    /// CPU time of the backend's main thread so far, in ns: the first field of /proc/PID/schedstat, which the scheduler
    /// keeps to the nanosecond. (utime and stime in /proc/PID/stat are in ticks of 10 ms.)
    pub fn cpu_ns(&self) -> u64 {
        let text =
            fs::read_to_string(format!("/proc/{}/schedstat", self.pid)).expect("the kernel has CONFIG_SCHED_INFO");
        let field = text.split_ascii_whitespace().next().and_then(|field| field.parse().ok());
        field.expect("the first field is a number")
    }

    /// Runs statements, and says how much CPU time of the backend they took.
    pub fn cost_ns(&mut self, statements: &str) -> u64 {
        let before = self.cpu_ns();
        self.client.run(statements);
        self.cpu_ns() - before
    }

    /// Runs a query for a count, and says how much CPU time of the backend it took.
    pub fn count_ns(&mut self, query: &str, expected: usize) -> u64 {
        let before = self.cpu_ns();
        let count: i64 = self.client.one(query, &[]);
        let cost = self.cpu_ns() - before;
        assert_eq!(usize::try_from(count), Ok(expected), "{query}");
        cost
    }

    /// Runs a query for a count, and says how long it took in ms.
    pub fn count_ms(&mut self, query: &str, expected: usize) -> f64 {
        let started = Instant::now();
        let count: i64 = self.client.one(query, &[]);
        let elapsed = started.elapsed().as_secs_f64() * 1e3;
        assert_eq!(usize::try_from(count), Ok(expected), "{query}");
        elapsed
    }
}
