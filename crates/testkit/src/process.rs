//! Child processes that end with the test process, run as a user that PostgreSQL accepts.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Output};
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, geteuid, kill_process};

use crate::waiting::is_reached_within;

/// PostgreSQL refuses to run as root, so a test process of root becomes this user for it.
const SERVER_USER: &str = "postgres";

type Job = (Command, Sender<io::Result<Child>>);

/// The parent-death signal belongs to the *thread* that started the child, and libtest ends a thread with each test. So
/// one thread starts all children and lives until the process ends.
static SPAWNER: LazyLock<Sender<Job>> = LazyLock::new(|| {
    let (jobs, inbox): (Sender<Job>, Receiver<Job>) = channel();
    thread::Builder::new()
        .name("spawner".into())
        .spawn(move || {
            for (mut command, reply) in inbox {
                // The test that asked may be gone by now: its child then is dropped here, and ends with the process.
                let _ = reply.send(command.spawn());
            }
        })
        .expect("a thread can be started");
    jobs
});

/// Starts a command whose life is bound to this test process by `setpriv --pdeathsig`.
pub fn spawn(command: Command) -> Child {
    let description = format!("{command:?}");
    let (reply, answer) = channel();
    SPAWNER.send((command, reply)).expect("the spawner lives as long as the process");
    answer.recv().expect("the spawner answers").unwrap_or_else(|error| panic!("cannot start {description}: {error}"))
}

/// A command that gets `death_signal` when this test process ends. Spawn it with [`spawn`].
pub fn bound(program: impl AsRef<OsStr>, death_signal: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", death_signal, "--"]).arg(program);
    command
}

/// As [`bound`], as the server's user. The environment is empty but for the search paths.
pub fn bound_as_server(program: impl AsRef<OsStr>, death_signal: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", death_signal]).args(become_server()).arg("--").arg(program);
    bare_environment(&mut command);
    command
}

/// A short-lived command as the server's user, with the same environment as the server has.
pub fn as_server(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(become_server()).arg("--").arg(program);
    bare_environment(&mut command);
    command
}

/// Runs a command to its end and panics with its output if it fails.
pub fn run(mut command: Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed with {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Gives a path to the user that the server runs as.
pub fn give_to_server(path: &Path) {
    static OWNER: LazyLock<(u32, u32)> = LazyLock::new(|| (identity("-u"), identity("-g")));
    if geteuid().is_root() {
        std::os::unix::fs::chown(path, Some(OWNER.0), Some(OWNER.1)).expect("root can change the owner");
    }
}

/// Whether a process runs: a zombie that nobody reaps does not.
pub fn is_running(pid: i32) -> bool {
    status_line(pid, "State:").is_some_and(|state| !state.starts_with(['Z', 'X']))
}

/// The direct children of a process.
pub fn children(parent: i32) -> Vec<i32> {
    let processes = Path::new("/proc").read_dir().expect("/proc can be read");
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|&pid| status_line(pid, "PPid:").is_some_and(|line| line == parent.to_string()))
        .collect()
}

/// Sends a signal to a process; says whether there was one.
pub fn send_signal(pid: i32, signal: Signal) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| kill_process(pid, signal).is_ok())
}

/// Waits for a child to end; says whether it did in time.
pub fn wait_for_end(child: &mut Child, patience: Duration) -> bool {
    is_reached_within(patience, || child.try_wait().expect("a child can be waited for").is_some())
}

/// One line of /proc/PID/status, without its name.
fn status_line(pid: i32, name: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().to_owned())
}

fn become_server() -> Vec<String> {
    if geteuid().is_root() {
        vec![format!("--reuid={SERVER_USER}"), format!("--regid={SERVER_USER}"), "--init-groups".into()]
    } else {
        Vec::new()
    }
}

fn bare_environment(command: &mut Command) {
    command.env_clear().env("LANG", "C");
    for name in ["PATH", "LD_LIBRARY_PATH"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
}

fn identity(option: &str) -> u32 {
    let output = run({
        let mut command = Command::new("id");
        command.args([option, SERVER_USER]);
        command
    });
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("id prints a number")
}
