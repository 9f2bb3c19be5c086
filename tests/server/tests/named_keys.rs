//! Named keys across sessions, parallel workers, KMS, and a dump. What one session sees is in tests/regress/sql/named_keys.sql.

use testkit::{Client, Fixture, Session};

testkit::shared_fixture!(Fixture::kms());

/// A named key, a role that may use it, and a session of that role.
fn named(fixture: &Fixture, name: &str, role: &str) -> (String, Client) {
    let key = fixture.new_key().arn;
    let client = fixture.connect_as(role, &["envelope_encrypt", "envelope_decrypt"]);
    fixture.cluster.sql(&format!(
        "CREATE SERVER {name} FOREIGN DATA WRAPPER envelope_pg OPTIONS (key_id '{key}');
         GRANT USAGE ON FOREIGN SERVER {name} TO {role}"
    ));
    (key, client)
}

#[test]
fn a_revoked_right_is_gone_in_all_sessions_before_the_next_statement() {
    let fixture = fixture();
    let (key, mut client) = named(&fixture, "revoked", "clinic");
    let value = client.encrypt("a text", "key:revoked");
    assert_eq!(client.decrypt(&value), "a text");
    fixture.cluster.sql("REVOKE USAGE ON FOREIGN SERVER revoked FROM clinic");
    client.fail_to_decrypt(&value).with("42501").says(&key);
    client.fail_to_encrypt(&key).with("42501");
    client.fail_to_encrypt("key:revoked").with("42501").says("revoked");
    fixture.cluster.sql("GRANT USAGE ON FOREIGN SERVER revoked TO clinic");
    assert_eq!(client.decrypt(&value), "a text");
}

#[test]
fn nobody_asks_kms_for_a_role_without_the_right() {
    let fixture = fixture();
    let (key, mut client) = named(&fixture, "unasked", "asker");
    let value = client.encrypt("a text", "key:unasked");
    let mut stranger = fixture.connect_as("stranger", &["envelope_encrypt", "envelope_decrypt"]);
    fixture.proxy.reset_counts();
    stranger.fail_to_decrypt(&value).with("42501").says(&key);
    stranger.fail_to_encrypt(&key).with("42501");
    assert_eq!(fixture.proxy.total_calls(), 0);
}

#[test]
fn parallel_workers_check_the_right() {
    let fixture = fixture();
    let (_, mut client) = named(&fixture, "in_parallel", "worker");
    fixture.cluster.sql("CREATE TABLE in_parallel (value bytea); GRANT ALL ON in_parallel TO worker");
    client.run(
        "INSERT INTO in_parallel SELECT env_encrypt(i::text, 'key:in_parallel') FROM generate_series(1, 100) AS i",
    );
    client.run(
        "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
         SET max_parallel_workers_per_gather = 2; SET parallel_leader_participation = off",
    );
    let count = "SELECT count(env_decrypt(value)) FROM in_parallel";
    assert_eq!(client.one::<i64>(count, &[]), 100);
    fixture.cluster.sql("REVOKE USAGE ON FOREIGN SERVER in_parallel FROM worker");
    client.fail(count, &[]).with("42501");
}

#[test]
fn options_of_the_connection_do_not_switch_the_requirement_off() {
    let fixture = fixture();
    let mut owner = fixture.connect_as("sly", &["envelope_encrypt", "envelope_decrypt"]);
    fixture.cluster.sql("ALTER ROLE sly SET envelope_pg.require_named_keys = 'on'");
    drop(owner);
    let unnamed = fixture.new_key().arn;
    for options in ["", "-c envelope_pg.require_named_keys=off", "-c envelope_pg.require_named_keys="] {
        owner = fixture.cluster.try_connect_with("sly", "postgres", options).unwrap();
        owner.fail_to_encrypt(&unnamed).with("42501");
    }
}

#[test]
fn a_dump_carries_names_and_rights() {
    let fixture = fixture();
    let (_, mut client) = named(&fixture, "dumped", "reader");
    let value = client.encrypt("a text", "key:dumped");
    let path = fixture.cluster.directory().join("named.dump").display().to_string();
    fixture.cluster.run("pg_dump", &["--format=custom", "--file", &path, "postgres"]);
    fixture.cluster.sql("CREATE DATABASE restored");
    fixture.cluster.run("pg_restore", &["--dbname=restored", &path]);
    let mut restored = fixture.cluster.connect("reader", "restored");
    assert_eq!(restored.decrypt(&value), "a text");
    let mut stranger = fixture.connect_as("stranger", &["envelope_encrypt", "envelope_decrypt"]);
    stranger.fail_to_decrypt(&value).with("42501");
    let mut stranger = fixture.cluster.connect("stranger", "restored");
    stranger.fail_to_decrypt(&value).with("42501");
}

#[test]
fn views_and_policies_ask_for_whoever_reads() {
    let fixture = fixture();
    let (_, mut reader) = named(&fixture, "seen", "viewer");
    let value = reader.encrypt("a text", "key:seen");
    let mut stranger = fixture.connect_as("stranger", &["envelope_encrypt", "envelope_decrypt"]);
    let mut admin = fixture.connect();
    admin.run("CREATE TABLE seen (value bytea)");
    admin.execute("INSERT INTO seen VALUES ($1)", &[&value]).expect("it is written");
    // A view's owner lends his right on the table, and not on the key: functions of a view run as whoever reads.
    admin.run(
        "CREATE VIEW seen_by_owner AS SELECT env_decrypt(value) FROM seen; GRANT SELECT ON seen_by_owner TO PUBLIC",
    );
    let mut views = vec!["seen_by_owner"];
    if admin.one::<i32>("SELECT current_setting('server_version_num')::int", &[]) >= 150_000 {
        admin.run(
            "CREATE VIEW seen_by_invoker WITH (security_invoker) AS SELECT env_decrypt(value) FROM seen;
             GRANT SELECT ON seen_by_invoker TO PUBLIC; GRANT SELECT ON seen TO PUBLIC",
        );
        views.push("seen_by_invoker");
    }
    for view in views {
        assert_eq!(reader.one::<String>(&format!("SELECT * FROM {view}"), &[]), "a text");
        stranger.fail(&format!("SELECT * FROM {view}"), &[]).with("42501").says("permission denied for key");
    }
    // A policy that decrypts.
    admin.run(
        "ALTER TABLE seen ENABLE ROW LEVEL SECURITY; GRANT SELECT ON seen TO PUBLIC;
         CREATE POLICY opened ON seen USING (env_decrypt(value) = 'a text')",
    );
    assert_eq!(reader.one::<i64>("SELECT count(*) FROM seen", &[]), 1);
    stranger.fail("SELECT count(*) FROM seen", &[]).with("42501").says("permission denied for key");
    admin.run("DROP TABLE seen CASCADE");
}

/// One backend, one cached data key, one prepared statement, and another client behind it each time.
#[test]
fn a_pooled_session_asks_for_each_of_its_users() {
    let fixture = fixture();
    let (_, mut reader) = named(&fixture, "pooled", "first");
    let value = reader.encrypt("a text", "key:pooled");
    fixture.connect_as("stranger", &["envelope_encrypt", "envelope_decrypt"]);
    let mut pool = fixture.connect();
    pool.run("SET plan_cache_mode = force_generic_plan");
    let decrypt = pool.prepare("SELECT env_decrypt($1)").expect("it can be prepared");
    for (switch, reset) in [
        ("SET ROLE", "RESET ROLE"),
        ("SET SESSION AUTHORIZATION", "RESET SESSION AUTHORIZATION"),
        ("BEGIN; SET LOCAL ROLE", "ROLLBACK"),
    ] {
        for _ in 0..2 {
            pool.run(&format!("{switch} first"));
            assert_eq!(pool.query_one(&decrypt, &[&value]).expect("it may").get::<_, String>(0), "a text");
            pool.run(reset);
            pool.run(&format!("{switch} stranger"));
            testkit::expect_error(pool.query(&decrypt, &[&value])).with("42501");
            pool.run(reset);
        }
    }
}

/// What a name means is kept where a statement or a trigger names it, for one role and one state of the catalogs.
#[test]
fn a_name_that_was_found_is_looked_up_again_when_it_may_mean_something_else() {
    let fixture = fixture();
    let (key, mut writer) = named(&fixture, "again", "writer");
    let other = fixture.new_key().arn;
    fixture.connect_as("stranger", &["envelope_encrypt", "envelope_decrypt"]);
    let mut pool = fixture.connect();
    // One place in one transaction: PL/pgSQL keeps the call site from one run of the expression to the next.
    pool.run(
        "CREATE FUNCTION seal_as(roles text[], statements text[]) RETURNS text[] LANGUAGE plpgsql AS $$
         DECLARE results text[]; value bytea;
         BEGIN
             FOR i IN 1 .. array_length(roles, 1) LOOP
                 EXECUTE statements[i];
                 PERFORM set_config('role', roles[i], true);
                 BEGIN
                     value := env_encrypt('a text', 'key:again');
                     results := results || env_key_id(value);
                 EXCEPTION WHEN insufficient_privilege THEN
                     results := results || 'refused'::text;
                 END;
                 PERFORM set_config('role', 'none', true);
             END LOOP;
             RETURN results;
         END $$",
    );
    let nothing = "SELECT 1";
    let moved = format!("ALTER SERVER again OPTIONS (SET key_id '{other}', ADD old_key_ids '{key}')");
    let steps = [
        ("writer", nothing, key.as_str()),
        ("writer", nothing, key.as_str()),
        ("writer", nothing, key.as_str()),
        ("stranger", nothing, "refused"),
        ("stranger", nothing, "refused"),
        ("writer", nothing, key.as_str()),
        ("writer", "REVOKE USAGE ON FOREIGN SERVER again FROM writer", "refused"),
        ("writer", "GRANT USAGE ON FOREIGN SERVER again TO writer", key.as_str()),
        ("writer", moved.as_str(), other.as_str()),
        ("none", nothing, other.as_str()),
        ("stranger", nothing, "refused"),
    ];
    let (roles, statements) = (steps.map(|step| step.0), steps.map(|step| step.1));
    let results: Vec<String> = pool.one("SELECT seal_as($1, $2)", &[&&roles[..], &&statements[..]]);
    assert_eq!(results, steps.map(|step| step.2));
    // A trigger is kept for the session.
    fixture.cluster.sql(
        r#"CREATE TABLE again (name text, value bytea); GRANT ALL ON again TO writer;
           CREATE TRIGGER seal BEFORE INSERT OR UPDATE ON again FOR EACH ROW EXECUTE FUNCTION
           env_encrypt_trigger('{"source": "name", "target": "value", "key_id": "key:again"}')"#,
    );
    let insert = "INSERT INTO again (name) VALUES ('a text') RETURNING env_key_id(value)";
    for _ in 0..2 {
        assert_eq!(writer.one::<String>(insert, &[]), other);
    }
    fixture.cluster.sql("REVOKE USAGE ON FOREIGN SERVER again FROM writer");
    writer.fail(insert, &[]).with("42501");
    fixture.cluster.sql(&format!(
        "GRANT USAGE ON FOREIGN SERVER again TO writer; ALTER SERVER again OPTIONS (SET key_id '{key}', DROP old_key_ids)"
    ));
    assert_eq!(writer.one::<String>(insert, &[]), key);
    fixture.cluster.sql("DROP TABLE again");
}
