//! Rotation with KMS: how often it is asked, and who may.

use std::time::{Duration, Instant};

use server_tests::rotation::{intact, number_of, rotate, run_of, spawn, table, under};
use testkit::{Emulator, Fault, Fixture, Session, expect_error, wait_until};

testkit::shared_fixture!(Fixture::kms());

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
    // A key that is not in the list is no key to rotate to, and is refused for each data key; nothing is asked.
    client.run(&format!("SET envelope_pg.allowed_keys = '{}'", fixture.key_id));
    expect_error(client.batch_execute(&rotate("listed", &new.arn, ""))).with("42501").says(&new.arn);
    assert_eq!(client.one::<i64>("SELECT count(*) FROM env_rotation WHERE relation = 'listed'", &[]), 0);
    client.run(&format!("SET envelope_pg.allowed_keys = '{}'", new.arn));
    expect_error(client.batch_execute(&rotate("listed", &new.arn, ""))).with("42501").says("50 rows failed");
    assert_eq!((number_of(&mut client, "listed", "failures"), number_of(&mut client, "listed", "rows_done")), (50, 0));
    assert_eq!(fixture.proxy.total_calls(), 0);
    let sqlstates = client
        .column::<String>("SELECT DISTINCT sqlstate FROM env_rotation_failure WHERE relation = 'listed'::regclass");
    assert_eq!(sqlstates, ["42501"]);
    // An alias that stands for a key that is not in it: asked once for each, and nothing is written.
    Emulator::shared().create_alias("alias/listed", &new);
    client.run(&format!("SET envelope_pg.allowed_keys = '{}, alias/listed'", fixture.key_id));
    client.one::<String>("SELECT env_rotation_abandon(max(run_id))::text FROM env_rotation", &[]);
    expect_error(client.batch_execute(&rotate("listed", "alias/listed", ""))).with("42501");
    assert_eq!(number_of(&mut client, "listed", "rows_done"), 0);
    client.one::<String>("SELECT env_rotation_abandon(max(run_id))::text FROM env_rotation", &[]);
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
