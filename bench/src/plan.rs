//! How much is measured: all of it, or a smoke run that shows that the benchmark works (BENCH_QUICK=1).

use std::env;
use std::path::PathBuf;

/// Sizes, repetitions, and where the results go.
pub struct Plan {
    pub is_quick: bool,
    /// Bytes of a plaintext, and rows of that size.
    pub sizes: Vec<(usize, usize)>,
    pub repetitions: usize,
    pub parallel_rows: usize,
    pub pgbench_seconds: usize,
    pub pgbench_repetitions: usize,
    pub storage_rows: usize,
    pub large_mib: Vec<usize>,
    /// Sessions that connect for a first value.
    pub connections: Vec<usize>,
    /// Data keys in use, and values that are read and written for each number of them.
    pub data_keys: Vec<usize>,
    pub growth_values: usize,
    pub sessions_at_once: Vec<usize>,
    /// Keys in the list.
    pub allowed_keys: Vec<usize>,
    pub output: PathBuf,
    /// Where scripts/bench.sh leaves what other programs have measured.
    pub input: PathBuf,
}

impl Plan {
    pub fn from_environment() -> Self {
        let target = PathBuf::from(env::var_os("BENCH_DIR").expect("scripts/bench.sh sets BENCH_DIR"));
        let is_quick = env::var_os("BENCH_QUICK").is_some_and(|value| value != "0" && !value.is_empty());
        if is_quick {
            return Self {
                is_quick,
                sizes: vec![(16, 5_000), (1 << 10, 1_000), (64 << 10, 20), (1 << 20, 4)],
                repetitions: 3,
                parallel_rows: 20_000,
                pgbench_seconds: 1,
                pgbench_repetitions: 1,
                storage_rows: 500,
                large_mib: vec![16],
                connections: vec![1, 4],
                data_keys: vec![10, 1_000],
                growth_values: 2_000,
                sessions_at_once: vec![1, 10],
                allowed_keys: vec![0, 50],
                output: target.clone(),
                input: target,
            };
        }
        Self {
            is_quick,
            sizes: vec![(16, 100_000), (1 << 10, 30_000), (64 << 10, 500), (1 << 20, 40)],
            repetitions: 11,
            parallel_rows: 1_000_000,
            pgbench_seconds: 3,
            pgbench_repetitions: 9,
            storage_rows: 10_000,
            large_mib: vec![100, 500, 1_023],
            connections: vec![1, 10, 200],
            data_keys: vec![10, 100, 1_000, 10_000, 100_000],
            growth_values: 100_000,
            sessions_at_once: vec![1, 10, 100, 500],
            allowed_keys: vec![0, 1, 10, 50, 100],
            output: PathBuf::from("docs"),
            input: target,
        }
    }
}

/// A size in bytes as people write it.
pub fn size_name(bytes: usize) -> String {
    match bytes {
        _ if bytes >= 1 << 20 => format!("{} MiB", bytes >> 20),
        _ if bytes >= 1 << 10 => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} B"),
    }
}
