//! A large table is rotated while pgbench writes the same rows: nothing is lost, every value opens, and what it costs the writers.
//! `ROWS` makes it larger, `BASELINE_SECONDS` the time that writers are alone, and `PAIRS` is how often the cost of each method is
//! compared with that of a plain UPDATE: `make rotation-load`.

use std::env;
use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use testkit::{Client, Cluster, Fixture, Session, process, wait_until};

const WRITERS: i64 = 2;

fn from_environment(name: &str, default: i64) -> i64 {
    env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

/// Runs `work` while pgbench raises the counters of random rows, seals each new state under `key_id`, and notes each commit;
/// prints how long its statements took.
fn with_writers(fixture: &Fixture, rows: i64, key_id: &str, what: &str, work: impl FnOnce()) {
    let directory = fixture.cluster.directory();
    let script = directory.join("write.sql");
    let statement = format!(
        "\\set id random(1, {rows})
         WITH w AS (UPDATE load SET counter = counter + 1, value = env_encrypt(id || ':' || counter + 1, :key)
             WHERE id = :id RETURNING id) INSERT INTO written SELECT id FROM w;"
    );
    fs::write(&script, statement).expect("the script can be written");
    process::give_to_server(&script);
    let mut pgbench = fixture.cluster.tool("pgbench");
    pgbench.args(["--no-vacuum", "--protocol=prepared", "--time=86400", "--log", "--log-prefix=latency"]);
    pgbench.args([format!("--client={WRITERS}"), format!("--jobs={WRITERS}"), format!("--file={}", script.display())]);
    // A rate, since it is the latency that is measured, and not how much the machine can do.
    pgbench.args(["--rate=600", &format!("--define=key={key_id}"), "postgres"]).current_dir(directory);
    // Each session seals with a data key of its own. One that was made before the run would be a suspect, so writers have to
    // take new ones for a reencrypting run to come to an end.
    pgbench.env("PGOPTIONS", "-c envelope_pg.dek_max_age=1s").stdout(Stdio::null()).stderr(Stdio::piped());
    let pgbench = process::spawn(pgbench);

    let mut witness = fixture.connect();
    let written = "SELECT count(*) FROM written";
    let before: i64 = witness.one(written, &[]);
    wait_until("pgbench writes", || witness.one::<i64>(written, &[]) > before);
    work();
    // A writer whose statement failed would be gone.
    let writers = "FROM pg_stat_activity WHERE application_name = 'pgbench'";
    assert_eq!(witness.one::<i64>(&format!("SELECT count(*) {writers}"), &[]), WRITERS, "a writer never fails");
    witness.one::<i64>(&format!("SELECT count(pg_terminate_backend(pid)) {writers}"), &[]);
    let output = pgbench.wait_with_output().expect("it ends without its sessions");
    let errors = String::from_utf8_lossy(&output.stderr);

    let mut latencies: Vec<f64> = Vec::new();
    for file in directory.read_dir().expect("it is there").flatten() {
        if file.file_name().to_string_lossy().starts_with("latency") {
            let log = fs::read_to_string(file.path()).expect("a log");
            fs::remove_file(file.path()).expect("it can be removed");
            // client, number, microseconds since it was due, script, second, microsecond, microseconds of these that it waited
            let latency = |line: &str| {
                let fields: Vec<f64> = line.split(' ').filter_map(|field| field.parse().ok()).collect();
                (fields[2] - fields[6]) / 1000.0
            };
            latencies.extend(log.lines().map(latency));
        }
    }
    assert!(!latencies.is_empty(), "{errors}");
    latencies.sort_by(f64::total_cmp);
    let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize];
    println!(
        "writers {what}: {} updates, p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
        latencies.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

/// What a statement took.
#[derive(Clone, Copy)]
struct Cost {
    elapsed: f64,
    /// Of the backend's main thread, in seconds.
    cpu: f64,
}

/// Runs a statement, and prints its rows per second.
fn timed(client: &mut Client, what: &str, rows: i64, statement: &str) -> Cost {
    let pid: i32 = client.one("SELECT pg_backend_pid()", &[]);
    // The first field is the CPU time in ns.
    let cpu = || {
        let schedstat = fs::read_to_string(format!("/proc/{pid}/schedstat")).expect("the backend runs");
        schedstat.split(' ').next().and_then(|field| field.parse::<f64>().ok()).expect("a number") / 1e9
    };
    let (started, before) = (Instant::now(), cpu());
    client.run(statement);
    let cost = Cost { elapsed: started.elapsed().as_secs_f64(), cpu: cpu() - before };
    println!(
        "{what}: {rows} rows in {:.2} s, {:.0} rows/s, {:.2} us CPU a row",
        cost.elapsed,
        rows as f64 / cost.elapsed,
        cost.cpu * 1e6 / rows as f64
    );
    cost
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn check(client: &mut Client, rows: i64, key_id: &str) {
    let intact = "SELECT count(*) FROM load WHERE env_decrypt(value) = id || ':' || counter";
    assert_eq!(client.one::<i64>(intact, &[]), rows, "every value opens to the state of its row");
    let lost =
        "SELECT count(*) FROM load LEFT JOIN (SELECT id, count(*) AS commits FROM written GROUP BY id) AS w USING (id)
        WHERE counter <> coalesce(commits, 0)";
    assert_eq!(client.one::<i64>(lost, &[]), 0, "no update was lost");
    let under: i64 = client.one("SELECT count(*) FROM load WHERE env_key_id(value) = $1", &[&key_id]);
    assert_eq!(under, rows);
}

#[test]
fn others_write_while_a_large_table_is_rotated() {
    let rows = from_environment("ROWS", 200_000);
    let idle_seconds = from_environment("BASELINE_SECONDS", 2);
    let fixture = Fixture::kms_with(
        Cluster::builder().setting("shared_buffers", "256MB").setting("max_wal_size", "4GB").setting("jit", "off"),
    );
    let (old, new) = (fixture.key_id.clone(), fixture.new_key().arn);
    let mut client = fixture.connect();
    client.run("CREATE TABLE load (id bigint PRIMARY KEY, counter bigint NOT NULL DEFAULT 0, value bytea)");
    client.run("CREATE TABLE written (id bigint)");
    let fill =
        format!("INSERT INTO load SELECT i, 0, env_encrypt(i || ':0', '{old}') FROM generate_series(1, {rows}) AS i");
    timed(&mut client, "encrypt and insert", rows, &fill);
    client.run("VACUUM ANALYZE load");

    // Alone: the same rows, each time in a table as they were filled.
    let copy = |client: &mut Client| {
        client
            .run("DROP TABLE IF EXISTS copy; CREATE TABLE copy (LIKE load INCLUDING ALL); INSERT INTO copy TABLE load");
        client.run("VACUUM ANALYZE copy");
        client.run("CHECKPOINT");
    };
    let methods = ["rewrap", "reencrypt"];
    let mut costs: [Vec<(Cost, Cost)>; 2] = Default::default();
    for _ in 0..from_environment("PAIRS", 1) {
        copy(&mut client);
        let plain = "UPDATE copy SET value = value || ''";
        let plain = timed(&mut client, &format!("plain {plain}"), rows, plain);
        for (method, costs) in methods.iter().zip(&mut costs) {
            copy(&mut client);
            let planned = client
                .query_one(
                    "SELECT wal_bytes, rows_to_change, extract(epoch FROM duration)::float8
                     FROM env_rotation_plan('copy', 'value', $1, $2)",
                    &[&new, &method],
                )
                .expect("a plan");
            // A large table is planned from a sample.
            assert!(
                (rows * 19 / 20..=rows * 21 / 20).contains(&planned.get(1)),
                "{} rows planned",
                planned.get::<_, i64>(1)
            );
            let before: String = client.one("SELECT pg_current_wal_lsn()::text", &[]);
            let call = format!("CALL env_rotate('copy', 'value', '{new}', '{method}')");
            let cost = timed(&mut client, &format!("{method} alone"), rows, &call);
            costs.push((cost, plain));
            let wal: i64 =
                client.one("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), $1::text::pg_lsn)::bigint", &[&before]);
            let (planned_wal, planned_seconds) = (planned.get::<_, i64>(0), planned.get::<_, f64>(2));
            println!(
                "{method} alone: WAL {wal} bytes, planned {planned_wal}; {:.2} of the planned time",
                cost.elapsed / planned_seconds
            );
            assert!((wal / 3..wal * 3).contains(&planned_wal), "the plan is not far off");
        }
    }
    for (method, costs) in methods.iter().zip(&costs) {
        println!(
            "{method} against the plain UPDATE, median of {} pairs: CPU {:.2}, elapsed {:.2}",
            costs.len(),
            median(costs.iter().map(|(cost, plain)| cost.cpu / plain.cpu)),
            median(costs.iter().map(|(cost, plain)| cost.elapsed / plain.elapsed))
        );
    }
    client.run("DROP TABLE copy");

    // With others. They use the new key by now, as an application does before its old values are rotated.
    with_writers(&fixture, rows, &new, "before", || thread::sleep(Duration::from_secs(idle_seconds as u64)));
    for (method, key_id) in [("rewrap", &new), ("reencrypt", &new)] {
        let call = format!("CALL env_rotate('load', 'value', '{key_id}', '{method}')");
        with_writers(&fixture, rows, key_id, &format!("during {method}"), || {
            timed(&mut client, &format!("{method} with writers"), rows, &call);
        });
        let last =
            "SELECT state || ', ' || pass || ' passes, ' || rows_done || ' rows done, ' || kms_calls || ' KMS calls'
            FROM env_rotation ORDER BY run_id DESC LIMIT 1";
        let last = client.one::<String>(last, &[]);
        println!("{method} with writers: {last}");
        assert!(last.starts_with("done"), "it comes to an end while others write");
        check(&mut client, rows, key_id);
    }
    assert_eq!(client.one::<i64>("SELECT count(*) FROM env_rotation WHERE failures + not_envelopes > 0", &[]), 0);
}
