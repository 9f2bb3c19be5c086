//! The cache of data keys in a session, measured by the calls that reach KMS.

use std::collections::BTreeMap;

use testkit::{Client, Fault, Fixture, Session};

testkit::shared_fixture!(Fixture::kms());

/// GenerateDataKey and Decrypt calls so far.
fn calls(fixture: &Fixture) -> (usize, usize) {
    (fixture.proxy.calls("GenerateDataKey"), fixture.proxy.calls("Decrypt"))
}

fn encrypt_in_context(client: &mut Client, key_id: &str, context: &str) -> Vec<u8> {
    let query = "SELECT env_encrypt('a text'::text, $1, jsonb_build_object('context', $2::text))";
    client.one(query, &[&key_id, &context])
}

/// How often each data key was used by values of a table.
fn uses_by_dek(client: &mut Client, table: &str) -> Vec<i64> {
    client.column(&format!("SELECT count(*) FROM {table} GROUP BY env_dek_id(value) ORDER BY 1"))
}

#[test]
fn ten_thousand_rows_cost_one_call_and_a_second_session_one_more() {
    let fixture = fixture();
    let mut writer = fixture.connect();
    writer.run("CREATE TABLE ten_thousand (id int, value bytea)");
    writer
        .execute(
            "INSERT INTO ten_thousand SELECT id, env_encrypt('row ' || id, $1) FROM generate_series(1, 10000) AS id",
            &[&fixture.key_id],
        )
        .expect("the rows are encrypted");
    let right = "SELECT count(*) FROM ten_thousand WHERE env_decrypt(value) = 'row ' || id";
    assert_eq!(writer.one::<i64>(right, &[]), 10_000);
    assert_eq!(calls(&fixture), (1, 0), "the session that wrote");

    let mut reader = fixture.connect();
    for _ in 0..2 {
        assert_eq!(reader.one::<i64>(right, &[]), 10_000);
    }
    assert_eq!(calls(&fixture), (1, 1), "a second session that reads");
    println!("10,000 rows: 1 GenerateDataKey and 0 Decrypt in one session, 1 Decrypt in another");
    let bytes: i32 =
        reader.one("SELECT octet_length(value) - length('row 10000') FROM ten_thousand WHERE id = 10000", &[]);
    println!("{bytes} bytes around a value (the emulator's wrapped data key is shorter than that of AWS)");
    writer.run("DROP TABLE ten_thousand");
}

#[test]
fn a_data_key_seals_as_many_values_as_it_may() {
    let fixture = fixture();
    let mut client = fixture.connect();
    client.run("SET envelope_pg.dek_max_uses = 10");
    client.run("CREATE TEMP TABLE uses (value bytea)");
    let insert = "INSERT INTO uses SELECT env_encrypt('row ' || id, $1) FROM generate_series(1, 95) AS id";
    client.execute(insert, &[&fixture.key_id]).expect("the rows are encrypted");
    assert_eq!(uses_by_dek(&mut client, "uses"), [5, 10, 10, 10, 10, 10, 10, 10, 10, 10]);
    assert_eq!(calls(&fixture), (10, 0));
    assert_eq!(client.one::<i64>("SELECT count(env_decrypt(value)) FROM uses", &[]), 95);
    assert_eq!(calls(&fixture), (10, 0), "all ten still open without KMS");
}

#[test]
fn a_data_key_seals_as_many_bytes_as_it_may() {
    let fixture = fixture();
    let mut client = fixture.connect();
    client.run("SET envelope_pg.dek_max_bytes = '8kB'");
    client.run("CREATE TEMP TABLE bytes (value bytea)");
    let insert = "INSERT INTO bytes SELECT env_encrypt(repeat('x', 1024), $1) FROM generate_series(1, 20) AS id";
    client.execute(insert, &[&fixture.key_id]).expect("the rows are encrypted");
    assert_eq!(uses_by_dek(&mut client, "bytes"), [4, 8, 8]);
    // A value that is larger than the limit gets a data key of its own.
    let large = "SELECT env_encrypt(repeat('x', 20000), $1)";
    let first: Vec<u8> = client.one(large, &[&fixture.key_id]);
    let second: Vec<u8> = client.one(large, &[&fixture.key_id]);
    assert!(!client.one::<bool>("SELECT env_dek_id($1) = env_dek_id($2)", &[&first, &second]));
    assert_eq!(calls(&fixture), (5, 0));
}

#[test]
fn a_data_key_seals_as_long_as_it_may() {
    let fixture = fixture();
    let mut client = fixture.connect();
    let dek_id = |client: &mut Client| -> Vec<u8> {
        client.one("SELECT env_dek_id(env_encrypt('a text'::text, $1))", &[&fixture.key_id])
    };
    let first = dek_id(&mut client);
    assert_eq!(dek_id(&mut client), first);
    client.run("SET envelope_pg.dek_max_age = '1s'");
    client.see_aged(1.2);
    let second = dek_id(&mut client);
    assert_ne!(second, first);
    assert_eq!(calls(&fixture), (2, 0));
}

#[test]
fn kms_is_asked_again_when_an_entry_is_old() {
    let fixture = fixture();
    let mut client = fixture.connect();
    let value = client.encrypt("a text", &fixture.key_id);
    client.run("SELECT env_cache_flush(); SET envelope_pg.cache_ttl = '1s'");
    fixture.proxy.reset_counts();
    assert_eq!(client.decrypt(&value), "a text");
    client.see_aged(1.0);
    assert_eq!(client.decrypt(&value), "a text");
    assert_eq!(calls(&fixture), (0, 2));

    // Encryption asks as well: a key that was disabled meanwhile must not go on sealing.
    client.run("SELECT env_cache_flush()");
    fixture.proxy.reset_counts();
    client.encrypt("a text", &fixture.key_id);
    client.see_aged(1.0);
    client.encrypt("a text", &fixture.key_id);
    assert_eq!(fixture.proxy.total_calls(), 2);
}

#[test]
fn a_denial_is_in_effect_when_the_entry_is_old() {
    let fixture = fixture();
    let mut client = fixture.connect();
    client.run("SET envelope_pg.cache_ttl = '1s'");
    let value = client.encrypt("a text", &fixture.key_id);
    for (code, sqlstate) in [("AccessDeniedException", "42501"), ("DisabledException", "55000")] {
        fixture.proxy.clear();
        client.run("SELECT env_cache_flush()");
        client.encrypt("a text", &fixture.key_id);
        client.decrypt(&value);
        fixture.proxy.set(Fault::kms_error(400, code));
        assert_eq!(client.decrypt(&value), "a text", "the entry is fresh");
        client.see_aged(1.0);
        client.fail_to_decrypt(&value).with(sqlstate);
        client.fail_to_encrypt(&fixture.key_id).with(sqlstate);
        // It stays so: the entry is gone.
        client.fail_to_decrypt(&value).with(sqlstate);
    }
}

#[test]
fn the_cache_is_bounded() {
    let fixture = fixture();
    let mut writer = fixture.connect();
    let values: BTreeMap<&str, Vec<u8>> = ["a", "b", "c"]
        .into_iter()
        .map(|context| (context, encrypt_in_context(&mut writer, &fixture.key_id, context)))
        .collect();
    let mut reader = fixture.connect();
    reader.run("SET envelope_pg.cache_entries = 2");
    fixture.proxy.reset_counts();
    for (context, decrypts) in [("a", 1), ("b", 2), ("a", 2), ("b", 2), ("c", 3), ("c", 3)] {
        assert_eq!(reader.decrypt(&values[context]), "a text");
        assert_eq!(calls(&fixture), (0, decrypts), "after {context}");
    }
    // One of the two had to go: which one, nobody can tell.
    for context in ["a", "b"] {
        assert_eq!(reader.decrypt(&values[context]), "a text");
    }
    assert!((4..=5).contains(&calls(&fixture).1), "{:?}", calls(&fixture));
    assert_eq!(reader.one::<i32>("SELECT env_cache_flush()", &[]), 2);
}

#[test]
fn a_context_and_a_key_have_data_keys_of_their_own() {
    let fixture = fixture();
    let other = fixture.new_key();
    let mut client = fixture.connect();
    for _ in 0..3 {
        client.encrypt("a text", &fixture.key_id);
        client.encrypt("a text", &other.arn);
        encrypt_in_context(&mut client, &fixture.key_id, "one");
        encrypt_in_context(&mut client, &fixture.key_id, "two");
    }
    assert_eq!(calls(&fixture), (4, 0));
}

#[test]
fn flushing_forgets_all_and_says_how_many() {
    let fixture = fixture();
    let mut client = fixture.connect();
    assert_eq!(client.one::<i32>("SELECT env_cache_flush()", &[]), 0);
    let value = client.encrypt("a text", &fixture.key_id);
    let other = encrypt_in_context(&mut client, &fixture.key_id, "other");
    assert_eq!(client.one::<i32>("SELECT env_cache_flush()", &[]), 2);
    assert_eq!(client.one::<i32>("SELECT env_cache_flush()", &[]), 0);
    fixture.proxy.reset_counts();
    client.decrypt(&value);
    client.decrypt(&other);
    client.encrypt("a text", &fixture.key_id);
    assert_eq!(calls(&fixture), (1, 2));
}

#[test]
fn a_failed_statement_or_transaction_keeps_the_cache() {
    let fixture = fixture();
    let mut client = fixture.connect();
    client.run("BEGIN");
    let value = client.encrypt("a text", &fixture.key_id);
    client.fail("SELECT 1 / 0", &[]).with("22012");
    client.run("ROLLBACK");
    assert_eq!(client.decrypt(&value), "a text");
    client.encrypt("a text", &fixture.key_id);
    assert_eq!(calls(&fixture), (1, 0));
}
