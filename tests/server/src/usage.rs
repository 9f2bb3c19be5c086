//! What a process uses: memory, open descriptors, threads.

use std::fs;

/// The use of one process at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Memory of its own in kB: no files, no shared memory.
    pub memory_kb: usize,
    /// Open sockets.
    pub sockets: usize,
    /// Other open descriptors, without the tables and the WAL: of these PostgreSQL opens what it comes across, and keeps
    /// some of it open.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
}

impl Usage {
    /// Reads it from /proc; panics if there is no such process.
    pub fn of(pid: i32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
        let memory = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux 4.5 and later say it");
        let entries = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).expect("the process runs").flatten();
        // One that was closed meanwhile counts for nothing.
        let targets = entries("fd").filter_map(|entry| fs::read_link(entry.path()).ok());
        let targets: Vec<_> = targets.map(|target| target.to_string_lossy().into_owned()).collect();
        let is_data = |target: &str| ["/base/", "/global/", "/pg_wal/"].iter().any(|part| target.contains(part));
        let sockets = targets.iter().filter(|target| target.starts_with("socket:")).count();
        Self {
            memory_kb: memory.trim().trim_end_matches(" kB").parse().expect("a number of kB"),
            sockets,
            descriptors: targets.iter().filter(|target| !is_data(target)).count() - sockets,
            threads: entries("task").count(),
        }
    }
}
