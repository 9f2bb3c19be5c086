//! Hot standbys and promotion: each server has a broker of its own.

use testkit::{Client, Fixture, Session, wait_until};

fn wait_for_replay(fixture: &Fixture, standby: &mut Client) {
    let written: String = fixture.connect().one("SELECT pg_current_wal_lsn()::text", &[]);
    wait_until("the standby has replayed", || {
        standby.one("SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", &[&written])
    });
}

#[test]
fn a_hot_standby_reads_and_seals_through_its_own_broker_and_is_promoted() {
    let fixture = Fixture::with_broker();
    let mut primary = fixture.connect();
    primary.run("CREATE TABLE kept (value bytea)");
    primary.execute("INSERT INTO kept VALUES (env_encrypt('a text', $1))", &[&fixture.key_id]).expect("it is written");
    // A run that is not finished: whether it runs is known to the primary alone.
    let open_run = format!("CALL env_rotate('kept', 'value', '{}', max_passes => 1)", fixture.new_key().arn);
    primary.run(&open_run);
    primary.run(&format!(
        "SELECT env_cache_flush(true); UPDATE kept SET value = env_encrypt('a text', '{}')",
        fixture.key_id
    ));
    const STATE: &str = "SELECT state FROM env_rotation";
    assert_eq!(primary.one::<String>(STATE, &[]), "interrupted");
    let standby = fixture.cluster.standby();
    let mut reader = standby.connect("postgres", "postgres");
    wait_for_replay(&fixture, &mut reader);
    assert!(reader.one::<bool>("SELECT pg_is_in_recovery()", &[]));
    assert_eq!(reader.one::<String>(STATE, &[]), "not known on a standby");

    fixture.proxy.reset_counts();
    const READ: &str = "SELECT env_decrypt(value) FROM kept";
    for _ in 0..3 {
        assert_eq!(standby.connect("postgres", "postgres").one::<String>(READ, &[]), "a text");
    }
    assert_eq!(fixture.kms_calls(), (0, 1), "three sessions of the standby");
    assert_ne!(standby.broker(), fixture.cluster.broker());
    // Sealing needs no transaction that writes.
    let sealed = reader.encrypt("of the standby", &fixture.key_id);
    assert_eq!(primary.decrypt(&sealed), "of the standby");
    assert_eq!(fixture.kms_calls(), (1, 2));
    // The functions that act on the broker work, too.
    reader.run("SELECT env_cache_flush(true); SELECT env_stat_reset(); SELECT * FROM env_stat_kms, env_stat_broker");
    reader.one::<Vec<u8>>("SELECT env_rotate_dek($1, '{}')", &[&fixture.key_id]);

    // The primary's data key is not known to the server that takes over.
    let of_primary = primary.encrypt("a text", &fixture.key_id);
    fixture.cluster.stop_immediate();
    assert!(reader.one::<bool>("SELECT pg_promote()", &[]));
    let mut writer = standby.connect("postgres", "postgres");
    fixture.proxy.reset_counts();
    writer.execute("INSERT INTO kept VALUES (env_encrypt('new', $1))", &[&fixture.key_id]).expect("it is written");
    let deks: i64 = writer.one("SELECT count(DISTINCT env_dek_id(value)) FROM kept", &[]);
    assert_eq!(deks, 2, "a new data key");
    assert_eq!(writer.column::<String>(READ), ["a text", "new"]);
    assert_eq!(writer.decrypt(&of_primary), "a text");
    assert!(standby.log_lines("panicked").is_empty());
}

#[test]
fn a_read_only_transaction_may_seal() {
    let fixture = Fixture::with_broker();
    let mut client = fixture.connect();
    client.run("BEGIN READ ONLY");
    let value = client.encrypt("a text", &fixture.key_id);
    assert_eq!(client.decrypt(&value), "a text");
    client.one::<Vec<u8>>("SELECT env_rotate_dek($1, '{}')", &[&fixture.key_id]);
    client.run("COMMIT");
    // What was made in a transaction that is rolled back stays the current one.
    client.run("BEGIN");
    let rotated: Vec<u8> = client.one("SELECT env_rotate_dek($1, '{}')", &[&fixture.key_id]);
    client.run("ROLLBACK");
    let next: Vec<u8> = fixture.connect().one("SELECT env_dek_id(env_encrypt('a text'::text, $1))", &[&fixture.key_id]);
    assert_eq!(next, rotated);
}
