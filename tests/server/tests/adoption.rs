//! A plaintext column becomes an encrypted one while others go on writing plaintext: the last that they wrote is what counts.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use testkit::random::Random;
use testkit::{Client, Cluster, Fault, Fixture, Rule, Session, expect_error, process, wait_until};

const ROWS: i64 = 20_000;

/// Writes plaintext into random rows until told to stop; says what it wrote last into each. Writers have rows of their own.
fn write(mut client: Client, number: i64, writers: i64, stop: &AtomicBool) -> HashMap<i64, String> {
    let mut random = Random::new(number as u64 + 1);
    let mut last = HashMap::new();
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let id = random.below(ROWS / writers) * writers + number + 1;
        count += 1;
        let text = format!("writer {number}, number {count}");
        let updated = client.execute("UPDATE adopted SET plain = $2 WHERE id = $1", &[&id, &text]);
        assert_eq!(updated.expect("a writer never fails"), 1);
        last.insert(id, text);
        thread::sleep(Duration::from_millis(1));
    }
    last
}

#[test]
fn what_is_written_meanwhile_is_encrypted_too() {
    let fixture = Fixture::local();
    for clear_source in [false, true] {
        let mut client = fixture.connect();
        client.run(&format!(
            "DROP TABLE IF EXISTS adopted;
             CREATE TABLE adopted (id bigint PRIMARY KEY, plain text, value bytea);
             INSERT INTO adopted SELECT i, 'text ' || i FROM generate_series(1, {ROWS}) AS i"
        ));
        let call = format!(
            "CALL env_encrypt_column('adopted', 'plain', 'value', 'local:dev', clear_source => {clear_source}, max_passes => 1000)"
        );
        let stop = AtomicBool::new(false);
        let written: HashMap<i64, String> = thread::scope(|scope| {
            let spawn = |number| {
                let (client, stop) = (fixture.connect(), &stop);
                scope.spawn(move || write(client, number, 2, stop))
            };
            let writers: Vec<_> = (0..2).map(spawn).collect();
            let running = scope.spawn(|| client.batch_execute(&call));
            thread::sleep(Duration::from_secs(2));
            stop.store(true, Ordering::Relaxed);
            let written = writers.into_iter().flat_map(|writer| writer.join().expect("no writer panics"));
            let written = written.collect();
            // Where the writers got no time for a whole pass, it was right to end before their last.
            let ended_before = running.is_finished();
            running.join().expect("no panic").expect("it comes to its end when nobody writes plaintext any more");
            if ended_before {
                fixture.connect().run(&call);
            }
            written
        });
        println!("clear_source {clear_source}: {} rows were written meanwhile", written.len());
        assert!(written.len() > 100, "{}", written.len());
        let rows = client.query("SELECT id, env_decrypt(value), plain FROM adopted", &[]).expect("every value opens");
        assert_eq!(rows.len() as i64, ROWS);
        for row in rows {
            let (id, opened, plain): (i64, String, Option<String>) = (row.get(0), row.get(1), row.get(2));
            let expected = written.get(&id).cloned().unwrap_or_else(|| format!("text {id}"));
            assert_eq!(opened, expected, "row {id}");
            assert_eq!(plain, (!clear_source).then_some(expected), "row {id}");
        }
    }
}

#[test]
fn it_takes_the_rights_to_encrypt_and_to_decrypt() {
    let fixture = Fixture::local();
    let mut owner = fixture.connect();
    owner.run("CREATE TABLE adopted (id int, plain text, value bytea); INSERT INTO adopted VALUES (1, 'text')");
    let call = "CALL env_encrypt_column('adopted', 'plain', 'value', 'local:dev')";
    for (number, groups) in [&["envelope_rotate"][..], &["envelope_encrypt", "envelope_decrypt"]].iter().enumerate() {
        let mut client = fixture.connect_as(&format!("lacking_{number}"), groups);
        owner.run(&format!("GRANT SELECT, UPDATE ON adopted TO lacking_{number}"));
        expect_error(client.batch_execute(call)).with("42501");
    }
    assert_eq!(owner.one::<i64>("SELECT count(value) FROM adopted", &[]), 0);
    let mut adopter = fixture.connect_as("adopter", &["envelope_rotate", "envelope_encrypt", "envelope_decrypt"]);
    owner.run("GRANT SELECT, UPDATE ON adopted TO adopter");
    adopter.run(call);
    assert_eq!(owner.one::<String>("SELECT env_decrypt(value) FROM adopted", &[]), "text");
}

#[test]
fn kill_9_in_the_middle_leaves_a_run_that_resumes() {
    let fixture = Fixture::local_with(Cluster::builder().setting("synchronous_commit", "on"));
    let mut witness = fixture.connect();
    witness.run(
        "CREATE TABLE adopted (id int, plain text, value bytea) PARTITION BY RANGE (id);
         CREATE TABLE adopted_1 PARTITION OF adopted FOR VALUES FROM (1) TO (2001);
         CREATE TABLE adopted_2 PARTITION OF adopted FOR VALUES FROM (2001) TO (6001);
         INSERT INTO adopted SELECT i, 'text ' || i FROM generate_series(1, 6000) AS i;
         CREATE TABLE written (id int);
         CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO written VALUES (NEW.id); RETURN NULL; END $$;
         CREATE TRIGGER log AFTER UPDATE ON adopted FOR EACH ROW EXECUTE FUNCTION log()",
    );
    let call = |more: &str| {
        format!(
            "CALL env_encrypt_column('adopted', 'plain', 'value', 'local:dev', aad_column => 'id', clear_source => true{more})"
        )
    };
    let mut client = fixture.connect();
    let pid = client.backend();
    let running = thread::spawn({
        let call = call(", max_rows_per_second => 3000");
        move || client.batch_execute(&call).is_err()
    });
    wait_until("some batches are done", || {
        witness.one::<i64>("SELECT count(*) FROM env_rotation WHERE rows_done > 1000", &[]) > 0
    });
    assert!(process::send_signal(pid, Signal::KILL));
    assert!(running.join().expect("no panic"), "its connection is gone");
    wait_until("the server ends all sessions", || witness.batch_execute("SELECT 1").is_err());
    wait_until("the server is back", || {
        let Ok(mut client) = fixture.cluster.try_connect("postgres", "postgres") else { return false };
        let back = client.batch_execute("SELECT FROM adopted LIMIT 1").is_ok();
        witness = client;
        back
    });
    // Each row has its plaintext, or a value in its place.
    let halfway = "SELECT count(*) FILTER (WHERE plain IS NULL AND env_decrypt(value, id::text) = 'text ' || id)
        FROM adopted WHERE (plain IS NULL) <> (value IS NULL)";
    let encrypted: i64 = witness.one(halfway, &[]);
    println!("kill -9 left {encrypted} of 6000 rows encrypted");
    assert!((1001..6000).contains(&encrypted), "{encrypted}");
    assert_eq!(witness.one::<i64>("SELECT count(*) FROM adopted WHERE plain = 'text ' || id", &[]), 6000 - encrypted);
    let done = "SELECT rows_done FROM env_rotation WHERE state = $1";
    assert_eq!(witness.one::<i64>(done, &[&"interrupted"]), encrypted, "what the run says is what is there");
    witness.run(&call(""));
    assert_eq!(witness.one::<i64>(done, &[&"done"]), 6000);
    assert_eq!(witness.one::<i64>(halfway, &[]), 6000);
    let twice: Vec<i64> = witness.column("SELECT count(*) FROM written GROUP BY id HAVING count(*) <> 1");
    assert!(twice.is_empty(), "no row was done twice");
}

#[test]
fn values_under_a_key_that_is_disabled_are_left_alone_until_it_is_not() {
    let fixture = Fixture::kms();
    let mut witness = fixture.connect();
    witness.run(&format!(
        "CREATE TABLE adopted (id int, plain text, value bytea);
         INSERT INTO adopted SELECT i, 'text ' || i, CASE WHEN i <= 5 THEN env_encrypt('text ' || i, '{}') END
             FROM generate_series(1, 10) AS i",
        fixture.key_id
    ));
    let last = "SELECT state || ', done ' || rows_done || ', failed ' || failures FROM env_rotation ORDER BY run_id DESC LIMIT 1";
    fixture.proxy.set(Rule::every(Fault::kms_error(400, "DisabledException")).only("Decrypt"));
    let encrypt = format!("CALL env_encrypt_column('adopted', 'plain', 'value', '{}')", fixture.new_key().arn);
    expect_error(fixture.connect().batch_execute(&encrypt)).with("55000").says("5 rows failed");
    assert_eq!(witness.one::<String>(last, &[]), "failed rows, done 5, failed 5");

    // With all of them refused, nothing is done that could be called so.
    witness.run("UPDATE adopted SET plain = NULL");
    let decrypt = "CALL env_decrypt_column('adopted', 'value', 'plain')";
    expect_error(fixture.connect().batch_execute(decrypt)).with("55000").says("10 rows failed");
    assert_eq!(witness.one::<String>(last, &[]), "failed rows, done 0, failed 10");
    fixture.proxy.clear();
    fixture.connect().run(decrypt);
    assert_eq!(witness.one::<String>(last, &[]), "done, done 10, failed 0");
    assert_eq!(witness.one::<i64>("SELECT count(*) FROM adopted WHERE plain = 'text ' || id", &[]), 10);
}
