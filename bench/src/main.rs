//! Measures envelope_pg in PostgreSQL beside pgcrypto, and writes docs/BENCHMARKS.md and docs/benchmarks.svg.
//!
//! - `machine`: what it was measured on
//! - `plan`: how much is measured: all, or (BENCH_QUICK=1) a smoke run
//! - `session`: a backend and the CPU time it has used
//! - `measure`: interleaved repetitions and their medians
//! - `contender`: the ways to encrypt a column, as SQL
//! - `core`: what the core's own benchmarks have measured
//! - `single`: one session: encrypt, insert, decrypt, read headers
//! - `parallel`: parallel query
//! - `throughput`: pgbench with 8 clients
//! - `connections`: time to the first value of a session, and its memory
//! - `growth`: how costs grow with data keys, sessions and allowed keys
//! - `storage`: bytes of values, TOAST strategies, dumps and WAL
//! - `large`: values up to the limit, and the memory they take
//! - `table`, `chart`: Markdown and SVG

#![forbid(unsafe_code)]

mod chart;
mod connections;
mod contender;
mod core;
mod growth;
mod large;
mod machine;
mod measure;
mod parallel;
mod plan;
mod session;
mod single;
mod storage;
mod table;
mod throughput;

use std::path::Path;

use testkit::{Cluster, Fixture, Session as _};

use crate::plan::Plan;

fn main() {
    let plan = Plan::from_environment();
    let cluster = Cluster::builder()
        .setting("shared_buffers", "2GB")
        .setting("max_wal_size", "8GB")
        .path_setting("envelope_pg.local_keyring", "keyring.json")
        .setting("jit", "off")
        .setting("autovacuum", "off");
    let fixture = Fixture::kms_with(cluster);
    fixture.cluster.sql("CREATE EXTENSION pgcrypto");
    let has_pgsodium =
        fixture.connect().one("SELECT count(*) > 0 FROM pg_available_extensions WHERE name = 'pgsodium'", &[]);
    if has_pgsodium {
        // Its event triggers make masking views, which nobody wants here, and fail unless it is preloaded.
        fixture.cluster.sql(
            "CREATE EXTENSION pgsodium;
             DO $$ DECLARE name text; BEGIN
                 FOR name IN SELECT evtname FROM pg_event_trigger LOOP
                     EXECUTE format('ALTER EVENT TRIGGER %I DISABLE', name);
                 END LOOP;
             END $$",
        );
    }

    let mut page = machine::describe(&fixture, &plan);
    let single = single::measure(&fixture, &plan, has_pgsodium);
    page += &single.markdown;
    page += &core::table(&plan);
    page += &instructions(&plan);
    page += &parallel::measure(&fixture, &plan);
    page += &throughput::measure(&plan);
    page += &connections::measure(&plan);
    let growth = growth::measure(&fixture, &plan);
    page += &growth.markdown;
    page += &storage::measure(&fixture, &plan);
    page += &large::measure(&fixture, &plan);

    std::fs::create_dir_all(&plan.output).expect("the output directory can be made");
    write(&plan.output.join("BENCHMARKS.md"), &page);
    write(&plan.output.join("benchmarks.svg"), &chart::ratios(&single.ratios));
    for (name, chart) in &growth.charts {
        write(&plan.output.join(name), chart);
    }
}

/// What scripts/instructions.sh has counted before, if it did.
fn instructions(plan: &Plan) -> String {
    let counted = std::fs::read_to_string(plan.input.join("instructions.txt")).unwrap_or_default();
    if counted.is_empty() {
        return String::new();
    }
    format!(
        "## Instructions per row\n\nCounted with callgrind in a single-user backend (`make bench-instructions`): the \
         difference between a query over N and over 2N rows. The same build gives the same counts again. valgrind knows no \
         AVX-512, so the paths inside the cipher are not the ones that the times above took on a machine that has it.\n\n\
         ```\n{}\n```\n\n",
        counted.trim_end()
    )
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    println!("wrote {}", path.display());
}
