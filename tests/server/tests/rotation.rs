//! Rotation with KMS: how often it is asked, who may, and what is left when something comes in between.

use std::sync::{LazyLock, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use server_tests::{
    Client, Cluster, Emulator, Failure, Fault, Fixture, Rule, Session, SharedFixture, expect_error, process, wait_until,
};

static SHARED: SharedFixture = LazyLock::new(|| Mutex::new(Fixture::kms()));

fn fixture() -> MutexGuard<'static, Fixture> {
    server_tests::lock(&SHARED)
}

/// A table of `rows` values, `per_dek` under each data key. `written` logs each update of a row.
fn table(fixture: &Fixture, name: &str, rows: i32, per_dek: i32) {
    let key_id = &fixture.key_id;
    fixture.connect().run(&format!(
        "SET envelope_pg.dek_max_uses = {per_dek};
         CREATE TABLE {name} (id int PRIMARY KEY, value bytea);
         CREATE TABLE {name}_written (id int);
         INSERT INTO {name} SELECT i, env_encrypt('text ' || i, '{key_id}') FROM generate_series(1, {rows}) AS i;
         CREATE FUNCTION {name}_log() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO {name}_written VALUES (NEW.id); RETURN NULL; END $$;
         CREATE TRIGGER log AFTER UPDATE ON {name} FOR EACH ROW EXECUTE FUNCTION {name}_log()"
    ));
}

fn rotate(name: &str, to_key: &str, more: &str) -> String {
    format!("CALL env_rotate('{name}', 'value', '{to_key}'{more})")
}

/// How many values open to what was put in.
fn intact(client: &mut Client, name: &str) -> i64 {
    client.one(&format!("SELECT count(*) FROM {name} WHERE env_decrypt(value) = 'text ' || id"), &[])
}

fn under(client: &mut Client, name: &str, key_id: &str) -> i64 {
    client.one(&format!("SELECT count(*) FROM {name} WHERE env_key_id(value) = $1"), &[&key_id])
}

/// A column of the view for the last run of a table, as text.
fn run_of(client: &mut Client, name: &str, column: &str) -> String {
    let last = "ORDER BY run_id DESC LIMIT 1";
    client.one(
        &format!("SELECT {column}::text FROM env_rotation WHERE relation IN ($1, 'public.' || $1) {last}"),
        &[&name],
    )
}

fn number_of(client: &mut Client, name: &str, column: &str) -> i64 {
    run_of(client, name, column).parse().expect("a number")
}

/// Runs a CALL in a thread.
fn spawn(mut client: Client, call: String) -> JoinHandle<(Client, Result<(), Failure>)> {
    thread::spawn(move || {
        let result = client.batch_execute(&call).map_err(|error| expect_error::<()>(Err(error)));
        (client, result)
    })
}

#[test]
fn kms_is_asked_once_for_each_data_key() {
    let fixture = fixture();
    table(&fixture, "asked", 400, 10);
    let new = fixture.new_key();
    let mut client = fixture.connect();
    fixture.proxy.reset_counts();
    let planned: i64 = client.one("SELECT kms_calls FROM env_rotation_plan('asked', 'value', $1)", &[&new.arn]);
    assert_eq!((planned, fixture.proxy.total_calls()), (40, 0), "the plan asks nobody");
    client.run(&rotate("asked", &new.arn, ""));
    assert_eq!(fixture.proxy.calls("ReEncrypt"), 40);
    assert_eq!(fixture.proxy.total_calls(), 40, "nothing is decrypted");
    assert_eq!(number_of(&mut client, "asked", "kms_calls"), 40);
    assert_eq!((intact(&mut client, "asked"), under(&mut client, "asked", &new.arn)), (400, 400));

    // What is under the key already costs nothing; by an alias, the one call that says what it stands for.
    fixture.proxy.reset_counts();
    fixture.connect().run(&rotate("asked", &new.arn, ""));
    assert_eq!(fixture.proxy.total_calls(), 0);
    Emulator::shared().create_alias("alias/asked", &new);
    fixture.connect().run(&rotate("asked", "alias/asked", ""));
    assert_eq!(fixture.proxy.calls("ReEncrypt"), 1);
    assert_eq!(client.one::<i64>("SELECT count(*) FROM asked_written", &[]), 400, "and no row is written again");

    // To another key by its alias: the session remembers what it has had rewrapped, until it is told to forget.
    let third = fixture.new_key();
    Emulator::shared().update_alias("alias/asked", &third);
    fixture.proxy.reset_counts();
    let mut fresh = fixture.connect();
    fresh.run("CREATE TABLE asked_copy AS SELECT * FROM asked");
    fresh.run(&rotate("asked", "alias/asked", ""));
    assert_eq!(fixture.proxy.calls("ReEncrypt"), 40);
    assert_eq!(under(&mut client, "asked", &third.arn), 400);
    fresh.run(&rotate("asked_copy", "alias/asked", ""));
    assert_eq!(fixture.proxy.calls("ReEncrypt"), 40);
    fresh.run(&format!(
        "TRUNCATE asked_copy; INSERT INTO asked_copy SELECT id, env_rewrap(value, '{}') FROM asked",
        new.arn
    ));
    fresh.run("SELECT env_cache_flush()");
    fixture.proxy.reset_counts();
    fresh.run(&rotate("asked_copy", "alias/asked", ""));
    assert_eq!(fixture.proxy.calls("ReEncrypt"), 40);
}

#[test]
fn data_keys_are_asked_for_at_the_same_time_and_before_rows_are_locked() {
    let fixture = fixture();
    table(&fixture, "at_once", 64, 1);
    let new = fixture.new_key();
    fixture.proxy.set(Fault::Delay(Duration::from_millis(200)));
    let client = fixture.connect();
    let started = Instant::now();
    let running = spawn(client, rotate("at_once", &new.arn, ", batch_blocks => 1000"));
    wait_until("KMS is asked", || fixture.proxy.calls("ReEncrypt") >= 16);
    fixture.connect().run("SELECT FROM at_once FOR UPDATE NOWAIT");
    let (mut client, result) = running.join().expect("no panic");
    result.expect("it is done");
    let elapsed = started.elapsed();
    println!("64 data keys at 200 ms a call: {elapsed:?}");
    assert!(elapsed < Duration::from_secs(4), "one after the other it takes 12.8 s: {elapsed:?}");
    assert_eq!(fixture.proxy.calls("ReEncrypt"), 64);

    // The same for what is opened and sealed again: one Decrypt for each, and one new data key.
    client.run("SELECT env_cache_flush()");
    fixture.proxy.reset_counts();
    let started = Instant::now();
    client.run(&rotate("at_once", &fixture.key_id, ", 'reencrypt', batch_blocks => 1000"));
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    let calls = ["Decrypt", "GenerateDataKey", "ReEncrypt"].map(|operation| fixture.proxy.calls(operation));
    assert_eq!(calls, [64, 1, 0]);
    assert_eq!(number_of(&mut client, "at_once", "kms_calls"), 65);
    fixture.proxy.clear();
    let deks: i64 = client.one("SELECT count(DISTINCT env_dek_id(value)) FROM at_once", &[]);
    assert_eq!((intact(&mut client, "at_once"), deks), (64, 1));
}

#[test]
fn who_may_rotate_need_not_decrypt() {
    let fixture = fixture();
    table(&fixture, "granted", 100, 1000);
    let new = fixture.new_key();
    let mut owner = fixture.connect();
    let mut rotator = fixture.connect_as("a_rotator", &["envelope_rotate"]);
    let call = rotate("granted", &new.arn, "");
    expect_error(rotator.batch_execute(&call)).with("42501").says("needs SELECT and UPDATE");
    owner.run("GRANT SELECT, UPDATE ON granted TO a_rotator; GRANT INSERT ON granted_written TO a_rotator");
    fixture.proxy.reset_counts();
    rotator.run(&call);
    assert_eq!(fixture.proxy.calls("Decrypt") + fixture.proxy.calls("GenerateDataKey"), 0);
    rotator.fail("SELECT env_decrypt(value) FROM granted", &[]).with("42501");
    rotator.fail("SELECT env_opens_to(value, 'text 1'::text) FROM granted", &[]).with("42501");
    assert_eq!(
        (intact(&mut owner, "granted"), run_of(&mut rotator, "granted", "started_by").as_str()),
        (100, "a_rotator")
    );
    // Nor to see the plaintext to have it sealed again.
    rotator.run(&rotate("granted", &new.arn, ", 'reencrypt'"));
    assert_eq!(intact(&mut owner, "granted"), 100);
    // To adopt takes the other rights.
    owner.run("ALTER TABLE granted ADD plain text; UPDATE granted SET plain = 'text'");
    let adopt = format!("CALL env_encrypt_column('granted', 'plain', 'value', '{}')", new.arn);
    expect_error(rotator.batch_execute(&adopt)).with("42501");
    // Row-level security would hide rows, and a run would be done without them.
    owner.run("ALTER TABLE granted ENABLE ROW LEVEL SECURITY");
    expect_error(rotator.batch_execute(&call)).with("42501").says("row-level security");
    for client in [&mut fixture.connect_as("a_reader", &["envelope_decrypt"]), &mut fixture.connect_as("nobody", &[])] {
        expect_error(client.batch_execute(&call)).with("42501");
        client.fail("SELECT env_rewrap(value, 'local:a') FROM granted", &[]).with("42501");
        client.fail("SELECT * FROM env_rotation", &[]).with("42501");
    }
}

#[test]
fn the_list_of_allowed_keys_holds_for_both_keys() {
    let fixture = fixture();
    table(&fixture, "listed", 50, 10);
    let new = fixture.new_key();
    let mut client = fixture.connect();
    fixture.proxy.reset_counts();
    // A key that is not in the list is refused for each data key, and nothing is asked.
    client.run(&format!("SET envelope_pg.allowed_keys = '{}'", fixture.key_id));
    client.run(&rotate("listed", &new.arn, ""));
    assert_eq!((number_of(&mut client, "listed", "failures"), number_of(&mut client, "listed", "rows_done")), (50, 0));
    client.run(&format!("SET envelope_pg.allowed_keys = '{}'", new.arn));
    client.run(&rotate("listed", &new.arn, ""));
    assert_eq!((number_of(&mut client, "listed", "failures"), number_of(&mut client, "listed", "rows_done")), (50, 0));
    assert_eq!(fixture.proxy.total_calls(), 0);
    let sqlstates = client
        .column::<String>("SELECT DISTINCT sqlstate FROM env_rotation_failure WHERE relation = 'listed'::regclass");
    assert_eq!(sqlstates, ["42501"]);
    // An alias that stands for a key that is not in it: asked once for each, and nothing is written.
    Emulator::shared().create_alias("alias/listed", &new);
    client.run(&format!("SET envelope_pg.allowed_keys = '{}, alias/listed'", fixture.key_id));
    client.run(&rotate("listed", "alias/listed", ""));
    assert_eq!(number_of(&mut client, "listed", "rows_done"), 0);
    // What the session remembers does not get around the list.
    client.run("RESET envelope_pg.allowed_keys");
    let rewrap = format!("SELECT env_rewrap(value, '{}') FROM listed WHERE id = 1", new.arn);
    client.one::<Vec<u8>>(&rewrap, &[]);
    client.run(&format!("SET envelope_pg.allowed_keys = '{}'", fixture.key_id));
    client.fail(&rewrap, &[]).with("42501").says(&new.arn);
    client.run(&format!("SET envelope_pg.allowed_keys = '{}'", new.arn));
    client.fail(&rewrap, &[]).with("42501").says(&fixture.key_id);
    client.run(&format!("SET envelope_pg.allowed_keys = '{}, {}'", new.arn, fixture.key_id));
    client.run(&rotate("listed", &new.arn, ""));
    assert_eq!((intact(&mut client, "listed"), under(&mut client, "listed", &new.arn)), (50, 50));
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
    wait_until("it runs", || run_of(&mut witness, "resumed", "state") == "running");
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
    let done = number_of(&mut client, "outage", "rows_done");
    println!("outage after {done} rows: {}", failure.detail);
    assert!((10..=110).contains(&done), "{done}");
    assert_eq!(
        (run_of(&mut client, "outage", "state").as_str(), number_of(&mut client, "outage", "failures")),
        ("interrupted", 0)
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
    assert!(
        fixture.proxy.calls("ReEncrypt") <= 40 - (done as usize).div_ceil(10) + 1,
        "{}",
        fixture.proxy.calls("ReEncrypt")
    );
    assert_eq!(intact(&mut fixture.connect(), "outage"), 400);
    // Throttling is no different; a refusal is about its data key only.
    fixture.proxy.set(Rule::every(Fault::kms_error(400, "ThrottlingException")).only("ReEncrypt"));
    let back = rotate("outage", &fixture.key_id, "");
    expect_error(fixture.connect().batch_execute(&back)).with("53400");
    fixture.proxy.set(Rule::every(Fault::kms_error(400, "AccessDeniedException")).only("ReEncrypt").times(2));
    let mut client = fixture.connect();
    client.run(&format!("{} ", rotate("outage", &fixture.key_id, ", batch_blocks => 1000")));
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
            let call = call(", max_rows_per_second => 4000");
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
