//! What a process uses: memory, open descriptors, threads.

use std::fs;

use crate::process;

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

/// The peak of the resident memory in kB, shared memory that the process has touched included.
pub fn peak_memory_kb(pid: i32) -> usize {
    status_kb(pid, "VmHWM:")
}

/// Makes the peak begin anew.
pub fn reset_peak_memory(pid: i32) {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("a process of the same user, or root asks");
}

/// Lets a process have so much more address space than it has now.
pub fn limit_address_space(pid: i32, more_kb: usize) {
    let bytes = (status_kb(pid, "VmSize:") + more_kb) * 1024;
    // As the same user: root may lack the right to limit processes of others.
    let mut command = process::as_server("prlimit");
    command.args(["--pid", &pid.to_string(), &format!("--as={bytes}:")]);
    process::run(command);
}

fn status_kb(pid: i32, name: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("Linux says it");
    line.trim().trim_end_matches(" kB").parse().expect("a number of kB")
}
