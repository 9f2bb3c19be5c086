//! Rotation when something comes in between: cancel, an outage of KMS, locked rows, DROP TABLE, kill -9.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use server_tests::rotation::{intact, number_of, rotate, run_of, spawn, table, under};
use testkit::{Cluster, Fault, Fixture, Rule, Session, expect_error, process, wait_until};

testkit::shared_fixture!(Fixture::kms());

/// One session asks KMS for wrapped keys at a time, and whoever may rotate can be that session for as long as he likes.
#[test]
fn who_keeps_others_from_asking_does_so_for_a_while_only() {
    let fixture = fixture();
    table(&fixture, "held_up", 100, 10);
    let new = fixture.new_key();
    let mut member = fixture.connect_as("holds_up", &["envelope_rotate"]);
    member.run("BEGIN; SELECT envelope_internal.rotation_donors_lock()");
    let mut client = fixture.connect();
    client.run("SET statement_timeout = '60s'");
    client.run(&rotate("held_up", &new.arn, ""));
    assert_eq!(under(&mut client, "held_up", &new.arn), 100);
    member.run("ROLLBACK");
}

#[test]
fn a_cancelled_run_resumes_and_does_nothing_twice() {
    let fixture = fixture();
    table(&fixture, "resumed", 4000, 100);
    let new = fixture.new_key();
    let mut witness = fixture.connect();
    let mut client = fixture.connect();
    let pid = client.backend();
    let slowly = rotate("resumed", &new.arn, ", max_rows_per_second => 1000");
    let running = spawn(client, slowly.clone());
    wait_until("some batches are done", || {
        witness
            .query_opt("SELECT FROM env_rotation WHERE relation = 'resumed' AND rows_done > 300", &[])
            .unwrap()
            .is_some()
    });

    // Meanwhile nobody else gets at the column, and the view says who does.
    assert_eq!(
        (run_of(&mut witness, "resumed", "state").as_str(), number_of(&mut witness, "resumed", "pid")),
        ("running", pid.into())
    );
    let run: i64 = number_of(&mut witness, "resumed", "run_id");
    expect_error(fixture.connect().batch_execute(&slowly)).with("55006").says("another run");
    witness.fail("SELECT env_rotation_abandon($1)", &[&run]).with("55006");

    witness.run(&format!("SELECT pg_cancel_backend({pid})"));
    let (mut client, result) = running.join().expect("no panic");
    result.expect_err("it was cancelled").with("57014");
    let done = number_of(&mut witness, "resumed", "rows_done");
    let rotated = under(&mut witness, "resumed", &new.arn);
    println!("cancelled after {done} rows");
    assert!(done > 300 && done < 4000, "{done}");
    assert_eq!(done, rotated, "what the run says is what is there");
    // The session that was cancelled lives on, and does not keep the lock.
    assert_eq!(client.one::<i32>("SELECT 1", &[]), 1);
    assert_eq!(run_of(&mut witness, "resumed", "state"), "interrupted");

    expect_error(witness.batch_execute(&rotate("resumed", &fixture.key_id, ""))).with("55000").says("not finished");
    fixture.proxy.reset_counts();
    witness.run(&rotate("resumed", &new.arn, ""));
    assert_eq!(number_of(&mut witness, "resumed", "run_id"), run, "the same run");
    assert_eq!(
        (run_of(&mut witness, "resumed", "state").as_str(), number_of(&mut witness, "resumed", "rows_done")),
        ("done", 4000)
    );
    let written: Vec<i64> = witness.column("SELECT count(*) FROM resumed_written GROUP BY id HAVING count(*) <> 1");
    assert!(written.is_empty(), "rows were written more than once");
    assert!(fixture.proxy.calls("ReEncrypt") <= 40 - rotated as usize / 100, "{}", fixture.proxy.calls("ReEncrypt"));
    assert_eq!(intact(&mut witness, "resumed"), 4000);

    // One that is given up makes place for another.
    let statement = rotate("resumed", &fixture.key_id, ", max_rows_per_second => 1000");
    let mut again = fixture.connect();
    let pid = again.backend();
    let running = spawn(again, statement);
    wait_until("it has done something", || {
        number_of(&mut witness, "resumed", "rows_done") < 4000 && number_of(&mut witness, "resumed", "rows_done") > 0
    });
    witness.run(&format!("SELECT pg_terminate_backend({pid})"));
    let mut outcome = running.join();
    wait_until("the session is gone", || run_of(&mut witness, "resumed", "state") == "interrupted");
    drop(outcome.as_mut().map(drop));
    let abandoned = number_of(&mut witness, "resumed", "run_id");
    witness.run(&format!("SELECT env_rotation_abandon({abandoned})"));
    assert_eq!(run_of(&mut witness, "resumed", "state"), "abandoned");
    witness.fail("SELECT env_rotation_abandon($1)", &[&abandoned]).with("55000");
    witness.run(&rotate("resumed", &new.arn, ", 'reencrypt'"));
    assert_eq!((intact(&mut witness, "resumed"), under(&mut witness, "resumed", &new.arn)), (4000, 4000));
}

#[test]
fn an_outage_in_the_middle_ends_the_call_and_not_the_run() {
    let fixture = fixture();
    table(&fixture, "outage", 400, 10);
    let new = fixture.new_key();
    // Ten data keys are rewrapped, and then KMS is gone.
    let pass = Rule::every(Fault::Pass).only("ReEncrypt").times(10);
    fixture.proxy.set_all(vec![pass, Rule::every(Fault::kms_error(500, "KMSInternalException")).only("ReEncrypt")]);
    let mut client = fixture.connect();
    let call = rotate("outage", &new.arn, ", batch_blocks => 1");
    let failure = expect_error(client.batch_execute(&call)).with("58000");
    println!("outage: {}", failure.detail);
    // No row was changed, so there is no run; what KMS has wrapped is not forgotten.
    assert_eq!(client.one::<i64>("SELECT count(*) FROM env_rotation WHERE relation = 'outage'", &[]), 0);
    assert_eq!(
        client.one::<i64>("SELECT count(*) FROM envelope_internal.rotation_donor WHERE key_id = $1", &[&new.arn]),
        10
    );
    assert_eq!(intact(&mut fixture.connect(), "outage"), 400);
    fixture.proxy.clear();
    fixture.proxy.reset_counts();
    let mut client = fixture.connect();
    client.run(&call);
    assert_eq!(
        (run_of(&mut client, "outage", "state").as_str(), number_of(&mut client, "outage", "rows_done")),
        ("done", 400)
    );
    assert_eq!(fixture.proxy.calls("ReEncrypt"), 30);
    assert_eq!(intact(&mut fixture.connect(), "outage"), 400);
    // Throttling is no different; a refusal is about its data key only.
    fixture.proxy.set(Rule::every(Fault::kms_error(400, "ThrottlingException")).only("ReEncrypt"));
    let back = rotate("outage", &fixture.key_id, "");
    expect_error(fixture.connect().batch_execute(&back)).with("53400");
    fixture.proxy.set(Rule::every(Fault::kms_error(400, "AccessDeniedException")).only("ReEncrypt").times(2));
    let mut client = fixture.connect();
    // It was asked again.
    client.run(&rotate("outage", &fixture.key_id, ", batch_blocks => 1000"));
    assert_eq!(run_of(&mut client, "outage", "state"), "done");
    assert_eq!(number_of(&mut client, "outage", "rows_done") + number_of(&mut client, "outage", "failures"), 400);
    assert_eq!(intact(&mut fixture.connect(), "outage"), 400);
}

#[test]
fn locked_rows_are_passed_over_and_come_back() {
    let fixture = fixture();
    table(&fixture, "locked", 200, 1000);
    let new = fixture.new_key();
    let mut client = fixture.connect();
    let mut holder = fixture.connect();
    holder.run("BEGIN; SELECT FROM locked WHERE id IN (5, 150) FOR UPDATE");
    let started = Instant::now();
    client.run(&rotate("locked", &new.arn, ", max_passes => 2"));
    assert!(started.elapsed() < Duration::from_secs(3), "nothing waited for the lock: {:?}", started.elapsed());
    assert_eq!(
        (run_of(&mut client, "locked", "state").as_str(), number_of(&mut client, "locked", "rows_left")),
        ("interrupted", 2)
    );
    assert_eq!(under(&mut client, "locked", &new.arn), 198);

    // While the next CALL works, the holder changes one of the rows, and commits.
    let running = spawn(client, rotate("locked", &new.arn, ", max_passes => 30"));
    let key_id = fixture.key_id.clone();
    holder.run(&format!("UPDATE locked SET value = env_encrypt('changed', '{key_id}') WHERE id = 5"));
    thread::sleep(Duration::from_millis(300));
    holder.run("COMMIT");
    let (mut client, result) = running.join().expect("no panic");
    result.expect("it is done");
    assert_eq!(run_of(&mut client, "locked", "state"), "done");
    assert_eq!((under(&mut client, "locked", &new.arn), intact(&mut client, "locked")), (200, 199));
    assert_eq!(client.one::<String>("SELECT env_decrypt(value) FROM locked WHERE id = 5", &[]), "changed");

    // Or wait for them.
    holder.run(&format!("BEGIN; UPDATE locked SET value = env_encrypt('again', '{}') WHERE id = 5", new.arn));
    let running = spawn(client, rotate("locked", &key_id, ", on_locked => 'wait'"));
    wait_until("it waits for the lock", || {
        fixture.connect().one::<i64>("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'", &[]) > 0
    });
    holder.run("COMMIT");
    let (mut client, result) = running.join().expect("no panic");
    result.expect("it is done");
    assert_eq!(client.one::<String>("SELECT env_decrypt(value) FROM locked WHERE id = 5", &[]), "again");
    assert_eq!(under(&mut client, "locked", &key_id), 200);
}

#[test]
fn a_table_that_goes_in_the_middle_is_an_error() {
    let fixture = fixture();
    table(&fixture, "dropped", 2000, 1000);
    let new = fixture.new_key();
    let mut witness = fixture.connect();
    for (change, sqlstate) in [("ALTER TABLE dropped RENAME value TO other", "42703"), ("DROP TABLE dropped", "42P01")]
    {
        let running = spawn(fixture.connect(), rotate("dropped", &new.arn, ", max_rows_per_second => 500"));
        wait_until("it runs", || {
            let running =
                "SELECT count(*) FROM env_rotation WHERE relation = 'dropped' AND state = 'running' AND rows_done > 0";
            witness.one::<i64>(running, &[]) > 0
        });
        witness.run(change);
        running.join().expect("no panic").1.expect_err("its column is gone").with(sqlstate);
        assert_eq!(run_of(&mut witness, "dropped", "state"), "failed");
        if change.contains("RENAME") {
            witness.run("ALTER TABLE dropped RENAME other TO value");
            assert_eq!(run_of(&mut witness, "dropped", "state"), "interrupted");
        }
    }
    // A relation may be renamed: the run is of the table, and not of its name.
    table(&fixture, "named", 2000, 1000);
    let running = spawn(fixture.connect(), rotate("named", &new.arn, ", max_rows_per_second => 1000"));
    wait_until("it runs", || {
        witness.one::<i64>("SELECT count(*) FROM env_rotation WHERE relation = 'named' AND rows_done > 0", &[]) > 0
    });
    witness.run("ALTER TABLE named RENAME TO renamed");
    running.join().expect("no panic").1.expect("it goes on");
    assert_eq!(run_of(&mut witness, "renamed", "rows_done"), "2000");
}

#[test]
fn a_partition_that_goes_in_the_middle_is_left_out() {
    let fixture = fixture();
    let key_id = &fixture.key_id;
    let new = fixture.new_key();
    let mut witness = fixture.connect();
    witness.run(&format!(
        "CREATE TABLE parts (id int, value bytea) PARTITION BY RANGE (id);
         CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (2000);
         CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (2000) TO (4000);
         INSERT INTO parts SELECT i, env_encrypt('text ' || i, '{key_id}') FROM generate_series(1, 3999) AS i"
    ));
    // Dropped while a batch works on it, and detached between the run and its next CALL.
    for (change, left) in [("DROP TABLE parts_1", 2000), ("ALTER TABLE parts DETACH PARTITION parts_2", 0)] {
        let to_key = if left > 0 { &new.arn } else { key_id };
        let running = spawn(fixture.connect(), rotate("parts", to_key, ", max_rows_per_second => 1500"));
        wait_until("it runs", || {
            let running =
                "SELECT count(*) FROM env_rotation WHERE relation = 'parts' AND state = 'running' AND rows_done > 0";
            witness.one::<i64>(running, &[]) > 0
        });
        witness.run(change);
        running.join().expect("no panic").1.expect("the run goes on without it");
        assert_eq!(run_of(&mut witness, "parts", "state"), "done");
        assert_eq!((intact(&mut witness, "parts"), under(&mut witness, "parts", to_key)), (left, left));
    }
}

#[test]
fn kill_9_in_the_middle_leaves_a_run_that_resumes() {
    // A crash may take back what was committed a moment ago if nobody waited for the WAL.
    let fixture = Fixture::kms_with(Cluster::builder().setting("synchronous_commit", "on"));
    table(&fixture, "killed", 6000, 500);
    let new = fixture.new_key();
    let mut witness = fixture.connect();
    for (method, rows_done) in [("rewrap", 6000), ("reencrypt", 6000)] {
        witness.run("TRUNCATE killed_written");
        let mut client = fixture.connect();
        let pid = client.backend();
        let call = |more: &str| rotate("killed", &new.arn, &format!(", '{method}'{more}"));
        let running = thread::spawn({
            let call = call(", max_rows_per_second => 1500");
            move || client.batch_execute(&call).is_err()
        });
        wait_until("some batches are done", || {
            let state = format!("SELECT count(*) FROM env_rotation WHERE method = '{method}' AND rows_done > 1000");
            witness.one::<i64>(&state, &[]) > 0
        });
        assert!(process::send_signal(pid, Signal::KILL));
        assert!(running.join().expect("no panic"), "its connection is gone");
        wait_until("the server ends all sessions", || witness.batch_execute("SELECT 1").is_err());
        wait_until("the server is back", || {
            let Ok(mut client) = fixture.cluster.try_connect("postgres", "postgres") else { return false };
            let back = client.batch_execute("SELECT FROM killed LIMIT 1").is_ok();
            witness = client;
            back
        });
        let left = ["state", "pass", "blocks_done", "blocks_total", "rows_done"]
            .map(|column| run_of(&mut witness, "killed", column));
        let written: i64 = witness.one("SELECT count(*) FROM killed_written", &[]);
        println!(
            "kill -9 during {method} left state, pass, blocks done and of, rows done: {left:?}; rows written: {written}"
        );
        assert_eq!((left[0].as_str(), left[4].as_str()), ("interrupted", written.to_string().as_str()));
        assert!(written > 1000 && written < 6000, "{written}");
        assert_eq!(intact(&mut witness, "killed"), 6000, "every value opens");
        witness.run(&call(""));
        assert_eq!(
            (run_of(&mut witness, "killed", "state").as_str(), number_of(&mut witness, "killed", "rows_done")),
            ("done", rows_done)
        );
        let twice: Vec<i64> = witness.column("SELECT count(*) FROM killed_written GROUP BY id HAVING count(*) <> 1");
        assert!(twice.is_empty(), "no row was done twice");
        assert_eq!((intact(&mut witness, "killed"), under(&mut witness, "killed", &new.arn)), (6000, 6000));
    }
    // The old data keys are gone: the run used one in each of its two sessions.
    assert_eq!(witness.one::<i64>("SELECT count(DISTINCT env_dek_id(value)) FROM killed", &[]), 2);
}
