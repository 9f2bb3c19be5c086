//! What it was measured on, and how.

use std::fs;
use std::process::Command;

use testkit::{Fixture, Session as _};

use crate::plan::Plan;

pub fn describe(fixture: &Fixture, plan: &Plan) -> String {
    let mut client = fixture.connect();
    let postgres: String = client.one("SELECT version()", &[]);
    let extension: String = client.one("SELECT extversion FROM pg_extension WHERE extname = 'envelope_pg'", &[]);
    let pgcrypto: String = client.one("SELECT extversion FROM pg_extension WHERE extname = 'pgcrypto'", &[]);
    let date: String = client.one("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD')", &[]);
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let quick = if plan.is_quick { "\n**A smoke run: the figures mean nothing.**\n" } else { "" };
    format!(
        "# Benchmarks\n\nWritten by `make bench`; do not edit. `make bench BENCH_QUICK=1` is a smoke run of it.\n{quick}\n\
         | | |\n|---|---|\n| date | {date} |\n| CPU | {} ({cpus} cores{}) |\n| memory | {} |\n| kernel | {} |\n\
         | PostgreSQL | {} |\n| envelope_pg | {extension} |\n| pgcrypto | {pgcrypto} |\n| Rust | {} |\n| load average at the start | {} |\n\n\
         How: one cluster, one run, a KMS emulator behind a counting proxy. The cases take turns, each {} times after a round \
         that does not count; a figure is the median. CPU time is that of the backend's main thread, user and kernel, from \
         `/proc/PID/schedstat`. Plaintext is ASCII hex in a table column, so no value is folded into a constant, and `count` \
         takes every result. Columns are `STORAGE EXTERNAL`, so nothing is compressed; everything is in shared buffers. The \
         times include what PostgreSQL takes to read the row, from its TOAST table for large ones. No KMS call is made while \
         the clock runs: the proxy's count is checked. Other load on the machine makes times larger; ratios stand it better.\n\n",
        cpu_model(),
        wide_instructions(),
        memory(),
        first_line("uname", &["-sr"]),
        postgres.split(',').next().unwrap_or_default(),
        first_line("rustc", &["--version"]),
        load_average(),
        plan.repetitions,
    )
}

fn cpu_model() -> String {
    cpu_info("model name").unwrap_or_else(|| "unknown".into())
}

/// Whether the ciphers have their fastest instructions.
fn wide_instructions() -> &'static str {
    let flags = cpu_info("flags").unwrap_or_default();
    let has = |flag| flags.split(' ').any(|word| word == flag);
    match (has("aes"), has("vaes") && has("avx512f")) {
        (_, true) => ", AES-NI, VAES, AVX-512",
        (true, false) => ", AES-NI",
        _ => "",
    }
}

fn cpu_info(field: &str) -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn memory() -> String {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kb = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default();
    let kb: u64 = kb.trim().trim_end_matches(" kB").parse().unwrap_or_default();
    format!("{} GiB", (kb + (1 << 19)) >> 20)
}

fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).lines().next().unwrap_or_default().to_owned()
}
