//! pgbench with 8 clients: one-row inserts and selects by key.

use std::cell::RefCell;
use std::fs;
use std::path::Path;

use testkit::{Fixture, Session as _};

use crate::measure::{Case, interleaved};
use crate::plan::Plan;
use crate::session::Session;
use crate::table::{Table, count, ratio};

const CLIENTS: usize = 8;
const ROWS: usize = 10_000;

pub fn measure(fixture: &Fixture, plan: &Plan) -> String {
    println!("pgbench");
    let key = &fixture.key_id;
    let pgp = |function: &str, what: &str| format!("{function}({what}, 'a password')");
    let plain = "md5(:id::text)";
    // Name, how to store, how to read.
    let kinds = [
        ("plaintext", format!("convert_to({plain}, 'UTF8')"), "convert_from(value, 'UTF8')".to_owned()),
        ("envelope_pg", format!("env_encrypt({plain}, '{key}')"), "env_decrypt(value)".to_owned()),
        ("pgcrypto pgp_sym, defaults", pgp("pgp_sym_encrypt", plain), pgp("pgp_sym_decrypt", "value")),
    ];
    let mut session = Session::start(fixture);
    session.client.run("CREATE SCHEMA bench");
    let directory = std::env::temp_dir().join(format!("envelope_bench.{}", std::process::id()));
    fs::create_dir_all(&directory).expect("a temporary directory");
    let mut scripts = Vec::new();
    for (index, (_, store, read)) in kinds.iter().enumerate() {
        session.client.run(&format!(
            "CREATE TABLE bench.row_{index} (id int PRIMARY KEY, value bytea);
             INSERT INTO bench.row_{index} SELECT id, {} FROM generate_series(1, {ROWS}) AS id;
             CREATE TABLE bench.new_{index} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, value bytea)",
            store.replace(":id", "id")
        ));
        session.vacuum(&format!("bench.row_{index}"));
        let random_id = format!("\\set id random(1, {ROWS})\n");
        for (what, statement) in [
            ("insert", format!("INSERT INTO bench.new_{index} (value) VALUES ({store});\n")),
            ("select", format!("SELECT {read} FROM bench.row_{index} WHERE id = :id;\n")),
        ] {
            let path = directory.join(format!("{what}_{index}.sql"));
            // pgbench would take the colons of a key ARN for variables.
            let statement = statement.replace(&format!("'{key}'"), ":key");
            fs::write(&path, format!("{random_id}{statement}")).expect("the script can be written");
            scripts.push(path);
        }
    }
    let fixture = RefCell::new(fixture);
    let cases = scripts.iter().map(|script| {
        let fixture = &fixture;
        Case { rows: 1, run: Box::new(move || pgbench(&fixture.borrow(), script, plan.pgbench_seconds)) }
    });
    let rates = interleaved(plan.pgbench_repetitions, cases.collect());
    session.client.run("DROP SCHEMA bench CASCADE");
    let _ = fs::remove_dir_all(&directory);

    let mut table = Table::new(&["", "insert", "of plaintext", "select by key", "of plaintext"]);
    for ((name, ..), rates_here) in kinds.iter().zip(rates.chunks(2)) {
        let [insert, select] = [0, 1].map(|what| rates_here[what]);
        table.row(&[
            (*name).to_owned(),
            count(insert),
            ratio(insert / rates[0]),
            count(select),
            ratio(select / rates[1]),
        ]);
    }
    format!(
        "## One-row statements\n\npgbench, {CLIENTS} clients, prepared statements, {} s each, median of {}: transactions a \
         second, and that as a part of plaintext's. Values of 32 B; `synchronous_commit` and `fsync` are off, so that it is not \
         the disk that is measured. Sessions begin cold: each one's first KMS calls are inside.\n\n{}",
        plan.pgbench_seconds,
        plan.pgbench_repetitions,
        table.finish()
    )
}

/// Transactions a second.
fn pgbench(fixture: &Fixture, script: &Path, seconds: usize) -> f64 {
    let (clients, seconds) = (CLIENTS.to_string(), seconds.to_string());
    let script = script.display().to_string();
    let key = format!("key={}", fixture.key_id);
    let arguments =
        ["-D", &key, "-n", "-M", "prepared", "-c", &clients, "-j", "2", "-T", &seconds, "-f", &script, "postgres"];
    let output = fixture.cluster.run("pgbench", &arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("number of failed transactions: 0") || !text.contains("failed transactions"), "{text}");
    let line = text.lines().find_map(|line| line.strip_prefix("tps = ")).unwrap_or_else(|| panic!("{text}"));
    line.split(' ').next().and_then(|rate| rate.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}
