//! pgbench with 8 clients: one-row inserts and selects by key.

use std::fs;
use std::path::PathBuf;

use testkit::{Cluster, Fixture, Session as _};

use crate::measure::{Case, median, rounds};
use crate::plan::Plan;
use crate::session::Session;
use crate::table::{Table, count, ratio};

const CLIENTS: usize = 8;
const ROWS: usize = 10_000;
/// Bytes of a value of 32 under the emulator's wrapped data key.
const VALUE_BYTES: usize = 247;

/// What pgbench runs, and on which server.
struct Script {
    path: PathBuf,
    is_durable: bool,
}

pub fn measure(plan: &Plan) -> String {
    println!("pgbench");
    let fixture = Fixture::with_broker_and(
        Cluster::builder()
            .setting("shared_buffers", "512MB")
            .setting("max_wal_size", "8GB")
            .setting("jit", "off")
            .setting("autovacuum", "off"),
    );
    fixture.cluster.sql("CREATE EXTENSION pgcrypto");
    let key = &fixture.key_id;
    let pgp = |function: &str, what: &str| format!("{function}({what}, 'a password')");
    let plain = "md5(:id::text)";
    // A constant, as to make one would take longer than to encrypt.
    let padding = "x".repeat(VALUE_BYTES - 32);
    let read_plain = "convert_from(value, 'UTF8')".to_owned();
    // Name, how to store, how to read.
    let kinds = [
        ("plaintext", format!("convert_to({plain}, 'UTF8')"), read_plain.clone()),
        ("plaintext as long as a value", format!("convert_to({plain} || '{padding}', 'UTF8')"), read_plain),
        ("envelope_pg", format!("env_encrypt({plain}, '{key}')"), "env_decrypt(value)".to_owned()),
        ("pgcrypto pgp_sym, defaults", pgp("pgp_sym_encrypt", plain), pgp("pgp_sym_decrypt", "value")),
    ];
    let mut session = Session::start(&fixture);
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
        let insert = format!("INSERT INTO bench.new_{index} (value) VALUES ({store});\n");
        let select = format!("SELECT {read} FROM bench.row_{index} WHERE id = :id;\n");
        for (what, statement, is_durable) in
            [("insert", &insert, false), ("durable", &insert, true), ("select", &select, false)]
        {
            let path = directory.join(format!("{what}_{index}.sql"));
            // pgbench would take the colons of a key ARN for variables.
            let statement = statement.replace(&format!("'{key}'"), ":key");
            fs::write(&path, format!("{random_id}{statement}")).expect("the script can be written");
            scripts.push(Script { path, is_durable });
        }
    }
    let cases = scripts.iter().map(|script| {
        let fixture = &fixture;
        Case { rows: 1, run: Box::new(move || pgbench(fixture, script, plan.pgbench_seconds)) }
    });
    let rates = rounds(plan.pgbench_repetitions, cases.collect());
    let _ = fs::remove_dir_all(&directory);

    let mut table =
        Table::new(&["", "insert", "of plaintext", "insert, durable", "of plaintext", "select by key", "of plaintext"]);
    for ((name, ..), of_kind) in kinds.iter().zip(rates.chunks(3)) {
        let cells = of_kind.iter().zip(&rates).flat_map(|(rates, plain)| {
            let mut ratios: Vec<_> = rates.iter().zip(plain).map(|(rate, plain)| rate / plain).collect();
            [count(median(&mut rates.clone())), ratio(median(&mut ratios))]
        });
        table.row(&std::iter::once((*name).to_owned()).chain(cells).collect::<Vec<_>>());
    }
    format!(
        "## One-row statements\n\npgbench, {CLIENTS} clients, prepared statements, {} s each, in {} rounds: the medians of \
         the transactions a second, and of their ratios to plaintext in the same round. Values of 32 B; broker on, each \
         session's first value included. `fsync` and `synchronous_commit` are off, so that it is not the disk that is \
         measured; on, as PostgreSQL comes, where inserts are durable.\n\n{}",
        plan.pgbench_seconds,
        plan.pgbench_repetitions,
        table.finish()
    )
}

/// Transactions a second.
fn pgbench(fixture: &Fixture, script: &Script, seconds: usize) -> f64 {
    let _durably =
        script.is_durable.then(|| ["fsync", "synchronous_commit"].map(|name| fixture.cluster.set_for_now(name, "on")));
    let (clients, seconds) = (CLIENTS.to_string(), seconds.to_string());
    let script = script.path.display().to_string();
    let key = format!("key={}", fixture.key_id);
    let arguments =
        ["-D", &key, "-n", "-M", "prepared", "-c", &clients, "-j", "2", "-T", &seconds, "-f", &script, "postgres"];
    let output = fixture.cluster.run("pgbench", &arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("number of failed transactions: 0") || !text.contains("failed transactions"), "{text}");
    let line = text.lines().find_map(|line| line.strip_prefix("tps = ")).unwrap_or_else(|| panic!("{text}"));
    line.split(' ').next().and_then(|rate| rate.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}
