//! The broker of a server, as seen from outside: its process, its files, and stopping it for a while.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;

use crate::cluster::Cluster;
use crate::fixture::Fixture;
use crate::process;
use crate::session::Session;
use crate::waiting::wait_until;

/// After so long without a sign of life a session goes on without the broker; with some room for a busy machine.
pub const SILENCE: Duration = Duration::from_millis(2_000);

/// A broker that SIGSTOP has stopped. It goes on when this is dropped.
pub struct Stopped(i32);

impl Cluster {
    /// The processes of brokers.
    pub fn brokers(&self) -> Vec<i32> {
        let title = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut children = process::children(self.pid());
        children.retain(|pid| title(pid).contains("envelope_pg broker") && process::is_running(*pid));
        children
    }

    /// The one broker.
    #[track_caller]
    pub fn broker(&self) -> i32 {
        match self.brokers()[..] {
            [pid] => pid,
            ref brokers => panic!("{} brokers run, not one:\n{}", brokers.len(), self.log()),
        }
    }

    /// Its files, by what their names end with: `sock`, `lock`, `launch`, `status`, `shared`.
    pub fn broker_file(&self, ending: &str) -> PathBuf {
        // The counters have a version of their own.
        let version = if ending == "shared" { 1 } else { 4 };
        self.data_directory().join(format!("pg_stat_tmp/envelope_pg.{version}.{ending}"))
    }

    /// Ends the broker and waits until it is gone.
    pub fn stop_broker(&self) {
        let mut client = self.connect("postgres", "postgres");
        assert!(client.one::<bool>("SELECT env_broker_stop()", &[]), "a broker runs");
        wait_until("the broker has ended", || self.brokers().is_empty());
    }
}

impl Fixture {
    /// GenerateDataKey and Decrypt calls that came to the proxy.
    pub fn kms_calls(&self) -> (usize, usize) {
        (self.proxy.calls("GenerateDataKey"), self.proxy.calls("Decrypt"))
    }
}

impl Stopped {
    /// Stops a process, so that it looks as if it hung.
    pub fn stop(pid: i32) -> Self {
        assert!(process::send_signal(pid, Signal::STOP), "process {pid} runs");
        wait_until("the process has stopped", || {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.lines().any(|line| line.starts_with("State:\tT"))
        });
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        process::send_signal(self.0, Signal::CONT);
    }
}
