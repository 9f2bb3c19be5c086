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
