//! Strict mode: `allowed_keys` holds before the network, on each use of a warm entry, and against whoever would widen it.

use std::net::TcpListener;

use testkit::{Client, Emulator, Fixture, KmsKey, Session};

testkit::shared_fixture!(Fixture::kms());

/// Sets `allowed_keys` in a session of a superuser.
fn allow(client: &mut Client, keys: &[&str]) {
    client.run(&format!("SET envelope_pg.allowed_keys = '{}'", keys.join(", ")));
}

/// Two keys: the one that is allowed, and the one that is not.
fn keys() -> (KmsKey, KmsKey) {
    (Emulator::shared().create_key(), Emulator::shared().create_key())
}

#[test]
fn a_key_outside_the_list_is_refused_before_the_network() {
    let fixture = fixture();
    let (allowed, forbidden) = keys();
    let mut client = fixture.connect();
    let value = client.encrypt("a text", &forbidden.arn);
    client.run("SELECT env_cache_flush()");
    allow(&mut client, &[&allowed.arn]);
    fixture.proxy.reset_counts();
    let failure = client.fail_to_encrypt(&forbidden.arn).with("42501").says(&forbidden.arn);
    assert!(!failure.hint.is_empty(), "{failure:?}");
    client.fail_to_decrypt(&value).with("42501").says(&forbidden.arn);
    // The same key by another name.
    client.fail_to_encrypt(&forbidden.id).with("42501");
    client.fail_to_encrypt("local:dev").with("42501");
    assert_eq!(fixture.proxy.total_calls(), 0);
    let value = client.encrypt("a text", &allowed.arn);
    assert_eq!(client.decrypt(&value), "a text");
    assert!(client.one::<bool>("SELECT env_is_envelope($1)", &[&value]));
}

#[test]
fn a_warm_entry_is_checked_at_each_use() {
    let fixture = fixture();
    let (allowed, forbidden) = keys();
    let mut client = fixture.connect();
    let value = client.encrypt("a text", &forbidden.arn);
    let other = client.encrypt("another text", &allowed.arn);
    assert_eq!(client.decrypt(&value), "a text");
    fixture.proxy.reset_counts();

    allow(&mut client, &[&allowed.arn]);
    client.fail_to_decrypt(&value).with("42501");
    client.fail_to_encrypt(&forbidden.arn).with("42501");
    assert_eq!(client.decrypt(&other), "another text");
    client.fail_to_decrypt(&value).with("42501");

    client.run("RESET envelope_pg.allowed_keys");
    assert_eq!(client.decrypt(&value), "a text");
    client.run("BEGIN");
    client.run(&format!("SET LOCAL envelope_pg.allowed_keys = '{}'", allowed.arn));
    client.run("SAVEPOINT narrow");
    client.fail_to_decrypt(&value).with("42501");
    client.run("ROLLBACK TO narrow");
    assert_eq!(client.decrypt(&other), "another text");
    client.run("COMMIT");
    assert_eq!(client.decrypt(&value), "a text", "SET LOCAL ended with the transaction");

    // A function with a setting of its own, either way.
    client.run(&format!(
        "CREATE FUNCTION pg_temp.narrow(value bytea) RETURNS text LANGUAGE plpgsql \
         SET envelope_pg.allowed_keys = '{}' AS 'BEGIN RETURN public.env_decrypt(value); END'",
        allowed.arn
    ));
    client.fail("SELECT pg_temp.narrow($1)", &[&value]).with("42501");
    assert_eq!(client.one::<String>("SELECT pg_temp.narrow($1)", &[&other]), "another text");
    assert_eq!(client.decrypt(&value), "a text");
    assert_eq!(fixture.proxy.total_calls(), 0, "all of it was warm");
}

#[test]
fn an_alias_needs_its_name_and_its_key_in_the_list() {
    let fixture = fixture();
    let (allowed, forbidden) = keys();
    let emulator = Emulator::shared();
    emulator.create_alias("alias/strict", &allowed);
    let mut client = fixture.connect();

    allow(&mut client, &[&allowed.arn]);
    fixture.proxy.reset_counts();
    client.fail_to_encrypt("alias/strict").with("42501").says("alias/strict");
    assert_eq!(fixture.proxy.total_calls(), 0);

    allow(&mut client, &["alias/strict"]);
    client.fail_to_encrypt("alias/strict").with("42501").says(&allowed.arn);

    allow(&mut client, &["alias/strict", &allowed.arn]);
    let value = client.encrypt("a text", "alias/strict");
    assert_eq!(client.decrypt(&value), "a text");

    // Whoever can move the alias cannot move the values to a key of his.
    emulator.update_alias("alias/strict", &forbidden);
    client.run("SELECT env_cache_flush()");
    client.fail_to_encrypt("alias/strict").with("42501").says(&forbidden.arn);
    client.fail_to_encrypt("alias/strict").with("42501").says(&forbidden.arn);
    assert_eq!(client.decrypt(&value), "a text");
}

#[test]
fn a_role_has_its_own_list_and_cannot_widen_it() {
    let fixture = fixture();
    let (allowed, forbidden) = keys();
    let value = fixture.connect().encrypt("a text", &forbidden.arn);
    drop(fixture.connect_as("app", &["envelope_encrypt", "envelope_decrypt"]));
    fixture.cluster.sql(&format!("ALTER ROLE app SET envelope_pg.allowed_keys = '{}'", allowed.arn));

    let mut app = fixture.cluster.connect("app", "postgres");
    let written = app.encrypt("a text", &allowed.arn);
    assert_eq!(app.decrypt(&written), "a text");
    let widen = format!("SET envelope_pg.allowed_keys = '{}'", forbidden.arn);
    for attempt in [
        widen.as_str(),
        "SET LOCAL envelope_pg.allowed_keys = ''",
        "RESET envelope_pg.allowed_keys",
        "SET envelope_pg.allowed_keys TO DEFAULT",
        "SELECT set_config('envelope_pg.allowed_keys', '', false)",
        "UPDATE pg_settings SET setting = '' WHERE name = 'envelope_pg.allowed_keys'",
    ] {
        app.fail(attempt, &[]).with("42501");
    }
    for harmless in ["RESET ALL", "DISCARD ALL", "SET SESSION AUTHORIZATION DEFAULT", "RESET ROLE"] {
        app.run(harmless);
    }
    app.fail_to_decrypt(&value).with("42501");
    app.fail_to_encrypt(&forbidden.arn).with("42501");
    app.fail("ALTER ROLE app SET envelope_pg.allowed_keys = ''", &[]).with("42501");
    assert_eq!(app.one::<String>("SHOW envelope_pg.allowed_keys", &[]), allowed.arn);
}

#[test]
fn no_setting_of_the_extension_is_for_users() {
    let fixture = fixture();
    let mut user = fixture.connect_as("plain_user", &["envelope_encrypt", "envelope_decrypt"]);
    user.encrypt("a text", &fixture.key_id);
    let mut superuser = fixture.connect();
    superuser.encrypt("a text", &fixture.key_id);
    let settings = superuser
        .query("SELECT name, context, coalesce(setting, '') FROM pg_settings WHERE name LIKE 'envelope_pg.%'", &[])
        .expect("pg_settings can be read");
    assert!(settings.len() >= 11, "{} settings", settings.len());
    for row in settings {
        let (name, context, setting): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        // It is about what the user encrypts, and widens the use of no key.
        if name == "envelope_pg.allow_double_encryption" {
            assert_eq!(context, "user");
            continue;
        }
        let failure = user.fail(&format!("SET {name} = '{setting}'"), &[]);
        match context.as_str() {
            "superuser" => drop(failure.with("42501")),
            "sighup" => {
                failure.with("55P02");
                superuser.fail(&format!("SET {name} = '{setting}'"), &[]).with("55P02");
            }
            other => panic!("{name} is {other}"),
        }
    }
}

#[test]
fn settings_made_before_the_library_is_loaded_do_not_win() {
    let fixture = fixture();
    let (allowed, forbidden) = keys();
    let value = fixture.connect().encrypt("a text", &forbidden.arn);
    drop(fixture.connect_as("early", &["envelope_encrypt", "envelope_decrypt"]));
    fixture.cluster.sql(&format!("ALTER ROLE early SET envelope_pg.allowed_keys = '{}'", allowed.arn));
    let elsewhere = TcpListener::bind("127.0.0.1:0").expect("a free port");
    elsewhere.set_nonblocking(true).expect("a socket can be made so");
    let url = format!("http://{}", elsewhere.local_addr().expect("a bound socket has an address"));

    let check = |mut client: Client, how: &str| {
        client.fail_to_encrypt(&forbidden.arn).with("42501");
        client.fail_to_decrypt(&value).with("42501");
        let written = client.encrypt("a text", &allowed.arn);
        assert_eq!(client.decrypt(&written), "a text", "{how}");
        assert_eq!(client.one::<String>("SHOW envelope_pg.allowed_keys", &[]), allowed.arn, "{how}");
        assert_eq!(client.one::<String>("SHOW envelope_pg.kms_endpoint_url", &[]), fixture.proxy.url(), "{how}");
        assert_eq!(client.one::<String>("SHOW envelope_pg.dek_max_uses", &[]), "0", "{how}");
        assert!(elsewhere.accept().is_err(), "{how}: the other endpoint was asked");
    };

    // Without the library these are nobody's settings, which anybody may set.
    let mut client = fixture.cluster.connect("early", "postgres");
    client.run(&format!("SET envelope_pg.allowed_keys = '{}'", forbidden.arn));
    client.run(&format!("SET envelope_pg.kms_endpoint_url = '{url}'; SET envelope_pg.dek_max_uses = 7"));
    check(client, "SET");

    let mut client = fixture.cluster.connect("early", "postgres");
    client.run("SET envelope_pg.allowed_keys = ''");
    check(client, "SET to nothing");

    let mut client = fixture.cluster.connect("early", "postgres");
    client.run(&format!("SELECT set_config('envelope_pg.kms_endpoint_url', '{url}', false)"));
    client.run("RESET envelope_pg.allowed_keys");
    check(client, "set_config and RESET");

    // In a transaction that loads the library only then.
    let mut client = fixture.cluster.connect("early", "postgres");
    client.run(&format!("BEGIN; SET LOCAL envelope_pg.allowed_keys = '{}'", forbidden.arn));
    client.fail_to_encrypt(&forbidden.arn).with("42501");
    client.run("ROLLBACK");
    check(client, "SET LOCAL");

    // What needs no library to be refused.
    let mut client = fixture.cluster.connect("early", "postgres");
    client.fail("LOAD 'envelope_pg'", &[]).with("42501");
    client.fail("ALTER ROLE early SET envelope_pg.allowed_keys = ''", &[]).with("42501");
    let function = "CREATE FUNCTION pg_temp.widen() RETURNS void LANGUAGE sql
        SET envelope_pg.allowed_keys = '' AS 'SELECT NULL'";
    client.fail(function, &[]).with("42501");
}

/// PostgreSQL takes options of the start-up packet for settings that it does not know yet, in place of the values of the
/// role and of the configuration file. When the library then refuses them, those values are gone.
#[test]
fn options_of_the_connection_do_not_drop_the_list() {
    let fixture = fixture();
    let (allowed, forbidden) = keys();
    let value = fixture.connect().encrypt("a text", &forbidden.arn);
    drop(fixture.connect_as("sly", &["envelope_encrypt", "envelope_decrypt"]));
    fixture.cluster.sql(&format!("ALTER ROLE sly SET envelope_pg.allowed_keys = '{}'", allowed.arn));
    for options in [
        format!("-c envelope_pg.allowed_keys={}", forbidden.arn),
        "-c envelope_pg.allowed_keys=".to_owned(),
        "-c envelope_pg.allowed_keys=alias/any".to_owned(),
        "--envelope_pg.allowed-keys=alias/any".to_owned(),
        "-c ENVELOPE_PG.ALLOWED_KEYS=alias/any".to_owned(),
        "-c envelope_pg.kms_endpoint_url=http://127.0.0.1:9".to_owned(),
        "-c envelope_pg.kms_region=eu-central-1".to_owned(),
    ] {
        // Refusing the connection is as good as refusing each call.
        let Ok(mut client) = fixture.cluster.try_connect_with("sly", "postgres", &options) else {
            continue;
        };
        fixture.proxy.reset_counts();
        for failure in [client.fail_to_encrypt(&forbidden.arn), client.fail_to_decrypt(&value)] {
            assert_eq!(failure.sqlstate, "42501", "{options}: {failure:?}");
        }
        assert_eq!(fixture.proxy.total_calls(), 0, "{options}");
        if let Ok(row) = client.query_one("SELECT env_encrypt('a text'::text, $1)", &[&allowed.arn]) {
            assert_eq!(client.decrypt(row.get(0)), "a text", "{options}: or it works as if they were not there");
            assert_eq!(fixture.proxy.total_calls(), 1, "{options}: the endpoint is the server's");
        }
    }
}

/// Parallel workers are given the values of the session's settings, and not how they came about.
#[test]
fn options_of_the_connection_do_not_drop_limits_in_parallel_workers() {
    let fixture = fixture();
    let (_, forbidden) = keys();
    let mut owner = fixture.connect();
    drop(fixture.connect_as("sneaky", &["envelope_encrypt", "envelope_decrypt"]));
    owner.run("CREATE TABLE secrets (value bytea); GRANT SELECT ON secrets TO sneaky");
    let insert = "INSERT INTO secrets SELECT env_encrypt('a text'::text, $1) FROM generate_series(1, 2000)";
    owner.execute(insert, &[&forbidden.arn]).expect("the rows are encrypted");
    for (setting, limit, options) in [
        ("allowed_keys", "local:dev", "-c envelope_pg.allowed_keys="),
        ("max_kms_calls_per_statement", "1", "-c envelope_pg.max_kms_calls_per_statement=1000"),
        ("max_kms_calls_per_statement", "1", "-c envelope_pg.max_kms_calls_per_statement=0"),
        ("stale_if_unreachable", "0", "-c envelope_pg.stale_if_unreachable=1h"),
        ("require_named_keys", "on", "-c envelope_pg.require_named_keys=off"),
    ] {
        owner.run(&format!("ALTER ROLE sneaky SET envelope_pg.{setting} = '{limit}'"));
        let mut client = fixture.cluster.try_connect_with("sneaky", "postgres", options).expect("a connection");
        // Loads the library.
        assert!(!client.one::<bool>("SELECT env_is_envelope('x')", &[]));
        client.run(
            "SET parallel_leader_participation = off; SET max_parallel_workers_per_gather = 2; SET parallel_setup_cost = 0; \
             SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0",
        );
        let plan = client.column::<String>("EXPLAIN SELECT count(env_decrypt(value)) FROM secrets");
        assert!(plan.iter().any(|line| line.contains("Workers Planned")), "{plan:?}");
        fixture.proxy.reset_counts();
        client.fail("SELECT count(env_decrypt(value)) FROM secrets", &[]).with("42501");
        assert_eq!(fixture.proxy.total_calls(), 0, "{options}");
        client.run("BEGIN; RESET ALL; ROLLBACK; RESET ALL");
        client.fail("SELECT count(env_decrypt(value)) FROM secrets", &[]).with("42501");
        owner.run(&format!("ALTER ROLE sneaky RESET envelope_pg.{setting}"));
    }
    owner.run("DROP TABLE secrets");
}

#[test]
fn a_forged_value_that_names_an_allowed_key_gets_no_plaintext() {
    let fixture = fixture();
    let (allowed, forbidden) = keys();
    let mut client = fixture.connect();
    let secret = client.encrypt("a text under the forbidden key", &forbidden.arn);
    let decoy = client.encrypt("a text under the allowed key", &allowed.arn);
    // Both are warm now. The values differ in nothing but the uuids of their keys where they name them.
    let forged = replace(&secret, &uuid(&forbidden), &uuid(&allowed));
    assert_eq!(client.one::<String>("SELECT env_key_id($1)", &[&forged]), allowed.arn);
    allow(&mut client, &[&allowed.arn]);
    for _ in 0..2 {
        let failure = client.fail_to_decrypt(&forged);
        assert!(["22000", "42501"].contains(&failure.sqlstate.as_str()), "{failure:?}");
    }
    assert_eq!(client.decrypt(&decoy), "a text under the allowed key");

    // Without a list, KMS decides: a value that names another key than the one that wrapped its data key is tampered.
    let mut client = fixture.connect();
    client.decrypt(&secret);
    let failure = client.fail_to_decrypt(&forged);
    assert!(["22000", "42501"].contains(&failure.sqlstate.as_str()), "{failure:?}");

    // The wrapped data key of one value in the other: the commitment tells.
    let stanza = |client: &mut Client, value: &[u8]| -> Vec<u8> {
        client.one("SELECT (env_inspect($1)).wrapped_dek", &[&value])
    };
    let (of_secret, of_decoy) = (stanza(&mut client, &secret), stanza(&mut client, &decoy));
    let swapped = replace(&replace(&secret, &of_secret, &of_decoy), &uuid(&forbidden), &uuid(&allowed));
    client.fail_to_decrypt(&swapped).with("22000");
}

#[test]
fn a_list_that_is_none_is_refused() {
    let fixture = fixture();
    let mut client = fixture.connect();
    client.run("LOAD 'envelope_pg'");
    for list in ["*", ",", "alias/a,,alias/b", "not a key", "arn:aws:s3:::bucket"] {
        client.fail(&format!("SET envelope_pg.allowed_keys = '{list}'"), &[]).with("22023");
    }
    for list in ["", "alias/a", "alias/a, local:dev", "mrk-0123456789abcdef0123456789abcdef"] {
        client.run(&format!("SET envelope_pg.allowed_keys = '{list}'"));
    }
}

/// The 16 bytes of a key's uuid, as a value's key reference has them.
fn uuid(key: &KmsKey) -> Vec<u8> {
    let digits: String = key.id.chars().filter(char::is_ascii_hexdigit).collect();
    (0..32).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits")).collect()
}

/// The bytes with one part, which they must have once, replaced by another of its length.
fn replace(bytes: &[u8], part: &[u8], by: &[u8]) -> Vec<u8> {
    assert_eq!(part.len(), by.len());
    let places: Vec<usize> = (0..=bytes.len() - part.len()).filter(|&at| bytes[at..].starts_with(part)).collect();
    let [place] = places[..] else { panic!("the part is {} times in the value", places.len()) };
    let mut replaced = bytes.to_vec();
    replaced[place..place + part.len()].copy_from_slice(by);
    replaced
}
