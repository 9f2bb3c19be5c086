//! Large values: time and peak memory up to the limit.

use std::time::Instant;

use testkit::usage::{peak_memory_kb, reset_peak_memory};
use testkit::{Fixture, Session as _};

use crate::plan::Plan;
use crate::session::Session;
use crate::table::Table;

/// What goes around a plaintext must fit too: see README, "Limits".
const HEADROOM_BYTES: usize = 1024;

pub fn measure(fixture: &Fixture, plan: &Plan) -> String {
    println!("large values");
    let mut table = Table::new(&["", "CPU", "wall", "peak memory", "more than before", "of the value"]);
    let mut setup = Session::start(fixture);
    setup.client.run(
        "CREATE SCHEMA bench; CREATE TABLE bench.large (plain bytea, value bytea);
        ALTER TABLE bench.large ALTER plain SET STORAGE EXTERNAL, ALTER value SET STORAGE EXTERNAL",
    );
    for &mib in &plan.large_mib {
        let bytes = (mib << 20) - if mib == 1_023 { HEADROOM_BYTES } else { 0 };
        setup.client.run(&format!(
            "TRUNCATE bench.large; INSERT INTO bench.large (plain) SELECT convert_to(repeat('x', {bytes}), 'UTF8')"
        ));
        // In the same statement as the source is made it would need that memory too.
        setup.client.run(&format!("UPDATE bench.large SET value = env_encrypt(plain, '{}')", fixture.key_id));
        for (name, expression) in [
            ("copy (`plain || ''`)", "length(plain || ''::bytea)".to_owned()),
            ("env_encrypt", format!("length(env_encrypt(plain, '{}'))", fixture.key_id)),
            ("env_decrypt_bytea", "length(env_decrypt_bytea(value))".to_owned()),
            ("env_key_id", "length(env_key_id(value))".to_owned()),
        ] {
            let mut session = Session::start(fixture);
            // Once before, so that the data key is there and the shared buffers that it reads are in this process's memory.
            let statement = format!("SELECT {expression} FROM bench.large");
            session.client.run(&statement);
            reset_peak_memory(session.pid);
            let (before, cpu, started) = (peak_memory_kb(session.pid), session.cpu_ns(), Instant::now());
            session.client.run(&statement);
            let (cpu, wall) = (session.cpu_ns() - cpu, started.elapsed());
            let peak = peak_memory_kb(session.pid);
            let more = (peak - before) as f64 / 1024.0;
            table.row(&[
                format!("{mib} MiB, {name}"),
                format!("{:.2} s", cpu as f64 / 1e9),
                format!("{:.2} s", wall.as_secs_f64()),
                format!("{} MiB", peak >> 10),
                format!("{more:.0} MiB"),
                format!("{:.2}", more / mib as f64),
            ]);
        }
    }
    setup.client.run("DROP SCHEMA bench CASCADE");
    let limit = setup
        .client
        .fail(&format!("SELECT env_encrypt(repeat('x', 1024 * 1024 * 1024 - 100), '{}')", fixture.key_id), &[]);
    format!(
        "## Large values\n\nA `bytea` in one row, from its TOAST table. Peak memory is `VmHWM` of the backend, begun anew before the \
         statement, which has run once before. What it adds is the value, as PostgreSQL puts it together, and the result. The limit of PostgreSQL for a value is 1 GB, with what goes around the plaintext. Above it the \
         error is {} `{}`: {} The session goes on.\n\n{}",
        limit.sqlstate,
        limit.message,
        limit.detail,
        table.finish()
    )
}
