//! How a run shows how far it is, keeps to its rate, and finds rows that were moved meanwhile.

use std::time::{Duration, Instant};

use server_tests::rotation::{intact, number_of, rotate, run_of, spawn, table, under};
use testkit::{Client, Fixture, Session, wait_until};

testkit::shared_fixture!(Fixture::local());

fn new_key(client: &mut Client, name: &str) -> String {
    client.one("SELECT env_local_create_key($1)", &[&name])
}

/// Waits until the run of a table is in a pass, has done some of it, and says when the pass will end.
fn wait_for_eta(client: &mut Client, name: &str, pass: i32) {
    let estimated = "SELECT count(*) FROM env_rotation
        WHERE relation = $1 AND pass = $2 AND state = 'running' AND eta >= updated";
    wait_until("the run says when it will end", || client.one::<i64>(estimated, &[&name, &pass]) > 0);
}

#[test]
fn a_run_keeps_to_its_rate_and_says_how_far_it_is() {
    let fixture = fixture();
    table(&fixture, "rated", 4000, 10_000);
    let mut witness = fixture.connect();
    let to_key = new_key(&mut witness, "rated");
    let mut client = fixture.connect();
    client.run("SET log_min_messages = notice");
    let call = rotate("rated", &to_key, ", max_rows_per_second => 500, max_passes => 1");
    let started = Instant::now();
    let running = spawn(client, call.clone());
    wait_for_eta(&mut witness, "rated", 1);
    let (client, result) = running.join().expect("no panic");
    result.expect("the pass comes to its end");
    // It may take longer.
    assert!(started.elapsed() >= Duration::from_secs(8), "4000 rows at 500 a second: {:?}", started.elapsed());
    let notices = fixture.cluster.log_lines(" rows done, ");
    assert!(!notices.is_empty(), "it says how far it is every five seconds");
    assert_eq!(under(&mut witness, "rated", &to_key), 4000);

    // A later pass says so, too.
    let key_id = &fixture.key_id;
    witness.run(&format!("UPDATE rated SET value = env_encrypt('text ' || id, '{key_id}') WHERE id <= 1500"));
    let running = spawn(client, call);
    wait_for_eta(&mut witness, "rated", 2);
    running.join().expect("no panic").1.expect("the pass comes to its end");
    assert_eq!(number_of(&mut witness, "rated", "rows_done"), 5500);
    assert_eq!((intact(&mut witness, "rated"), under(&mut witness, "rated", &to_key)), (4000, 4000));
}

#[test]
fn a_table_that_is_rewritten_in_the_middle_is_done_to_the_last_row() {
    let fixture = fixture();
    table(&fixture, "moved", 3000, 10_000);
    let mut witness = fixture.connect();
    let to_key = new_key(&mut witness, "moved");
    // So that VACUUM FULL moves rows to blocks that the run has gone by.
    witness.run("DELETE FROM moved WHERE id <= 1000");
    for method in ["rewrap", "reencrypt"] {
        let to_key = if method == "rewrap" { &to_key } else { &fixture.key_id };
        let running =
            spawn(fixture.connect(), rotate("moved", to_key, &format!(", '{method}', max_rows_per_second => 1000")));
        wait_until("some rows are done", || {
            let running =
                "SELECT count(*) FROM env_rotation WHERE relation = 'moved' AND state = 'running' AND rows_done > 300";
            witness.one::<i64>(running, &[]) > 0
        });
        witness.run("VACUUM FULL moved");
        running.join().expect("no panic").1.expect("it comes to its end");
        assert_eq!(run_of(&mut witness, "moved", "state"), "done");
        assert_eq!((intact(&mut witness, "moved"), under(&mut witness, "moved", to_key)), (2000, 2000));
    }
}

#[test]
fn the_end_of_a_run_is_foreseen_after_a_tenth_of_it() {
    let fixture = fixture();
    table(&fixture, "foreseen", 4000, 10_000);
    let mut witness = fixture.connect();
    let to_key = new_key(&mut witness, "foreseen");
    let running = spawn(fixture.connect(), rotate("foreseen", &to_key, ", max_rows_per_second => 500"));
    let tenth =
        "SELECT count(*) FROM env_rotation WHERE relation = 'foreseen' AND phase IS NOT NULL AND pass_percent >= 10";
    wait_until("a tenth is done", || witness.one::<i64>(tenth, &[]) > 0);
    let seen = "SELECT extract(epoch FROM eta - started)::float8, rows_done::float8, pass_percent::float8, current_relid::regclass::text
        FROM env_rotation WHERE relation = 'foreseen'";
    let seen = witness.query_one(seen, &[]).expect("the run is there");
    let (foreseen, rows, percent): (f64, f64, f64) = (seen.get(0), seen.get(1), seen.get(2));
    assert_eq!(seen.get::<_, String>(3), "foreseen");
    assert!((rows / 40.0 - percent).abs() < 5.0, "{rows} of 4000 rows are {percent} %");
    running.join().expect("no panic").1.expect("it is done");
    let took = "SELECT extract(epoch FROM finished - started)::float8 FROM env_rotation WHERE relation = 'foreseen'";
    let took: f64 = witness.one(took, &[]);
    println!("after {percent} %: {foreseen:.1} s foreseen, {took:.1} s taken");
    // That the one follows from the other is for tests/regress/sql/rotation_eta.sql to say, which has no machine's time in it.
    assert!(foreseen > 0.0 && took >= 8.0, "4000 rows at 500 a second");
}

#[test]
fn a_run_waits_for_a_replication_slot_that_keeps_much_wal() {
    let fixture = fixture();
    table(&fixture, "slotted", 500, 10_000);
    let mut witness = fixture.connect();
    let to_key = new_key(&mut witness, "slotted");
    witness.run("SELECT pg_create_physical_replication_slot('held', true)");
    let running =
        spawn(fixture.connect(), rotate("slotted", &to_key, ", max_slot_bytes => 1000, max_rows_per_second => 100000"));
    let waits =
        "SELECT count(*) FROM env_rotation WHERE relation = 'slotted' AND phase = 'throttled' AND rows_done < 500";
    wait_until("it waits", || witness.one::<i64>(waits, &[]) > 0);
    witness.run("SELECT pg_drop_replication_slot('held')");
    running.join().expect("no panic").1.expect("it is done");
    assert_eq!((intact(&mut witness, "slotted"), under(&mut witness, "slotted", &to_key)), (500, 500));
}
