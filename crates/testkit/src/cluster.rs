//! A throw-away PostgreSQL server, on a Unix socket and a loopback port of its own.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use postgres::{Client, Config, NoTls};
use rustix::process::Signal;

use crate::emulator::free_port;
use crate::install::Installation;
use crate::waiting::{is_reached_within, wait_until};
use crate::{process, scratch};

/// How long a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server. It stops and its directory goes when this is dropped.
pub struct Cluster {
    directory: PathBuf,
    data_directory: PathBuf,
    port: u16,
    environment: Vec<(String, String)>,
    postmaster: Mutex<Child>,
}

impl Cluster {
    /// A directory of this cluster beside the data directory; the server can write it.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The data directory.
    pub fn data_directory(&self) -> PathBuf {
        self.data_directory.clone()
    }

    /// Opens a connection through the Unix socket.
    pub fn connect(&self, user: &str, database: &str) -> Client {
        self.try_connect(user, database).unwrap_or_else(|error| {
            panic!("cannot connect to {database} as {user}: {error}\n{}", self.log());
        })
    }

    /// Opens a connection, or says why not.
    pub fn try_connect(&self, user: &str, database: &str) -> Result<Client, postgres::Error> {
        self.try_connect_with(user, database, "")
    }

    /// As [`Cluster::try_connect`], with server options such as `-c name=value` in the start-up packet.
    pub fn try_connect_with(&self, user: &str, database: &str, options: &str) -> Result<Client, postgres::Error> {
        Config::new()
            .host_path(&self.directory)
            .port(self.port)
            .user(user)
            .dbname(database)
            .options(options)
            .connect_timeout(Duration::from_secs(10))
            .connect(NoTls)
    }

    /// Runs statements as superuser in the database `postgres`.
    pub fn sql(&self, statements: &str) {
        let outcome = self.connect("postgres", "postgres").batch_execute(statements);
        outcome.unwrap_or_else(|error| panic!("{statements}: {error:?}"));
    }

    /// Changes a setting of the whole server (ALTER SYSTEM) and waits until new sessions show it.
    pub fn set(&self, name: &str, value: &str) {
        self.alter_system(&format!("SET {name} = '{}'", value.replace('\'', "''")), name);
    }

    /// Takes a setting back to what it was when the cluster was made.
    pub fn reset(&self, name: &str) {
        self.alter_system(&format!("RESET {name}"), name);
    }

    /// As [`Cluster::set`], until the guard is dropped.
    #[must_use]
    pub fn set_for_now(&self, name: &'static str, value: &str) -> SettingGuard<'_> {
        self.set(name, value);
        SettingGuard { cluster: self, name }
    }

    /// What the server has logged so far.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The lines of the log with a text.
    pub fn log_lines(&self, text: &str) -> Vec<String> {
        self.log().lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }

    /// The port of the loopback interface.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id of the postmaster.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.postmaster().id()).expect("a process id is an i32")
    }

    /// Fast shutdown and a new start.
    pub fn restart(&self) {
        let mut postmaster = self.postmaster();
        stop(&mut postmaster, Signal::INT);
        *postmaster = self.spawn();
        self.wait_until_ready(&mut postmaster);
    }

    /// Makes the server read its configuration files again, without waiting for it.
    pub fn reload(&self) {
        assert!(process::send_signal(self.pid(), Signal::HUP), "the postmaster runs");
    }

    /// Immediate shutdown: what a crash of the machine leaves.
    pub fn stop_immediate(&self) {
        self.stop_with(Signal::QUIT);
    }

    /// Shutdown in the mode of a signal: TERM is smart, INT fast, QUIT immediate.
    pub fn stop_with(&self, signal: Signal) {
        stop(&mut self.postmaster(), signal);
    }

    /// Starts a stopped server again.
    pub fn start_again(&self) {
        let mut postmaster = self.postmaster();
        *postmaster = self.spawn();
        self.wait_until_ready(&mut postmaster);
    }

    /// Makes and starts a hot standby of this server with pg_basebackup.
    pub fn standby(&self) -> Self {
        let directory = scratch::directory();
        let mut backup = self.tool("pg_basebackup");
        backup.args(["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync", "-D"]);
        let data_directory = directory.join("data");
        backup.arg(&data_directory);
        process::run(backup);
        Self::start_in(directory, data_directory, &[], self.environment.clone())
    }

    /// Runs one of PostgreSQL's client programs against this server as its superuser; panics if it fails.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = self.tool(program);
        command.args(arguments);
        process::run(command)
    }

    /// One of PostgreSQL's client programs, told how to reach this server.
    pub fn tool(&self, program: &str) -> Command {
        let mut command = process::as_server(Installation::current().program(program));
        command.env("PGHOST", &self.directory).env("PGPORT", self.port.to_string()).env("PGUSER", "postgres");
        command
    }

    pub(crate) fn start_in(
        directory: PathBuf,
        data_directory: PathBuf,
        lines: &[(String, String)],
        environment: Vec<(String, String)>,
    ) -> Self {
        let port = free_port();
        let mut text = String::from("\n");
        for (name, value) in lines {
            text.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
        }
        text.push_str(&format!("port = {port}\nunix_socket_directories = '{}'\n", directory.display()));
        let path = data_directory.join("postgresql.conf");
        let mut file = OpenOptions::new().append(true).open(path).expect("the data directory has its configuration");
        file.write_all(text.as_bytes()).expect("the configuration can be written");
        let postmaster = Mutex::new(spawn_postmaster(&directory, &data_directory, &environment));
        let cluster = Self { directory, data_directory, port, environment, postmaster };
        cluster.wait_until_ready(&mut cluster.postmaster());
        cluster
    }

    fn postmaster(&self) -> MutexGuard<'_, Child> {
        self.postmaster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log_path(&self) -> PathBuf {
        self.directory.join("server.log")
    }

    fn spawn(&self) -> Child {
        spawn_postmaster(&self.directory, &self.data_directory, &self.environment)
    }

    fn wait_until_ready(&self, postmaster: &mut Child) {
        let is_ready = is_reached_within(PATIENCE, || {
            let ended = postmaster.try_wait().expect("a child can be waited for");
            assert!(ended.is_none(), "the server ended with {}:\n{}", ended.unwrap_or_default(), self.log());
            self.try_connect("postgres", "postgres").is_ok()
        });
        assert!(is_ready, "the server does not start:\n{}", self.log());
    }

    fn alter_system(&self, what: &str, name: &str) {
        let mut client = self.connect("postgres", "postgres");
        let mut run = |statement: &str| {
            client.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        };
        if name.starts_with("envelope_pg.") {
            // ALTER SYSTEM knows the settings of a library only where the library is loaded.
            run("LOAD 'envelope_pg'");
        }
        run(&format!("ALTER SYSTEM {what}"));
        // A new session shows the file's value only if the postmaster has read the file; older sessions then have
        // their signal and take the value before their next statement.
        let loads = self.loads();
        self.reload();
        wait_until("the server has reloaded", || self.loads() != loads);
    }

    /// When a session that begins now finds the configuration to have been loaded.
    fn loads(&self) -> String {
        let mut client = self.connect("postgres", "postgres");
        let row = client.query_one("SELECT pg_conf_load_time()::text", &[]).expect("the server answers");
        row.get(0)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        stop(&mut self.postmaster(), Signal::QUIT);
        // What cannot be removed now goes with the scratch directory.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A setting that goes back when this is dropped.
pub struct SettingGuard<'cluster> {
    cluster: &'cluster Cluster,
    name: &'static str,
}

impl Drop for SettingGuard<'_> {
    fn drop(&mut self) {
        // A failing test may have lost its server: a second panic that leaves here would end the process.
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| self.cluster.reset(self.name)));
        if let Err(reason) = outcome
            && !thread::panicking()
        {
            panic::resume_unwind(reason);
        }
    }
}

fn spawn_postmaster(directory: &Path, data_directory: &Path, environment: &[(String, String)]) -> Child {
    let log = File::options().create(true).append(true).open(directory.join("server.log")).expect("a log file");
    let mut command = process::bound_as_server(Installation::current().program("postgres"), "QUIT");
    command
        .arg("-D")
        .arg(data_directory)
        .env("HOME", directory)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdout(log.try_clone().expect("a file handle can be cloned"))
        .stderr(log);
    process::spawn(command)
}

/// Stops a postmaster, the hard way if the soft one takes too long.
fn stop(postmaster: &mut Child, signal: Signal) {
    if postmaster.try_wait().expect("a child can be waited for").is_some() {
        return;
    }
    let pid = i32::try_from(postmaster.id()).expect("a process id is an i32");
    process::send_signal(pid, signal);
    if !process::wait_for_end(postmaster, PATIENCE) {
        process::send_signal(pid, Signal::KILL);
        process::wait_for_end(postmaster, PATIENCE);
    }
}
