//! The temporary directory of the test process, and its removal when the process ends in whatever way.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::process;

struct Scratch {
    path: PathBuf,
    /// It removes the directory when the pipe to it closes, which the kernel does however this process ends.
    _sweeper: Child,
}

static SCRATCH: LazyLock<Scratch> = LazyLock::new(|| {
    // Short: the path of a Unix socket has at most 107 bytes.
    let path = tempfile::Builder::new().prefix("epg").tempdir().expect("a temporary directory").keep();
    process::give_to_server(&path);
    let mut sweeper = Command::new("sh");
    sweeper
        .args(["-c", r#"trap '' HUP INT TERM; read -r line; rm -rf -- "$1"; sleep 1; rm -rf -- "$1""#, "sh"])
        .arg(&path)
        .stdin(Stdio::piped())
        // cargo waits for the end of the output of a test, so the sweeper must not hold it.
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Scratch { path, _sweeper: sweeper.spawn().expect("sh runs") }
});

/// The scratch directory of this process. Statics are never dropped, so a process of its own removes it.
pub fn root() -> &'static Path {
    &SCRATCH.path
}

/// A new directory in it that the server's user owns.
pub fn directory() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let path = root().join(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
    std::fs::create_dir(&path).expect("the scratch directory can be written");
    process::give_to_server(&path);
    path
}
