//! The life of a database with encrypted columns: dump and restore, restart, standby, parallel query, drop and create.

use std::fs;

use testkit::{Client, Cluster, Fixture, Session, process, wait_until};

testkit::shared_fixture!(Fixture::kms());

/// A plain table whose column is encrypted by the statement, one with a generated column, one with a trigger. The trigger
/// leaves values that are encrypted already, which is what makes a restore possible.
fn make_tables(client: &mut Client, key_id: &str) {
    client.run(&format!(
        "CREATE TABLE explicit (id int PRIMARY KEY, value bytea CHECK (env_is_envelope(value)));
         INSERT INTO explicit SELECT id, env_encrypt('explicit ' || id, '{key_id}', '{{\"table\": \"explicit\"}}', 'row ' || id)
             FROM generate_series(1, 50) AS id;
         CREATE TABLE generated (id int PRIMARY KEY, plain text,
             value bytea GENERATED ALWAYS AS (env_encrypt_generated(plain, '{key_id}')) STORED);
         INSERT INTO generated SELECT id, 'generated ' || id FROM generate_series(1, 50) AS id;
         CREATE FUNCTION encrypt_secret() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $$
             BEGIN
                 IF NOT env_is_envelope(NEW.value) THEN
                     NEW.value := env_encrypt(convert_from(NEW.value, 'UTF8'), '{key_id}');
                 END IF;
                 RETURN NEW;
             END $$;
         CREATE TABLE triggered (id int PRIMARY KEY, value bytea);
         CREATE TRIGGER encrypt_secret BEFORE INSERT OR UPDATE ON triggered
             FOR EACH ROW EXECUTE FUNCTION encrypt_secret();
         INSERT INTO triggered SELECT id, convert_to('triggered ' || id, 'UTF8') FROM generate_series(1, 50) AS id;"
    ));
}

fn check_tables(client: &mut Client) {
    for (table, opened) in [
        ("explicit", "env_decrypt(value, 'row ' || id)"),
        ("generated", "env_decrypt(value)"),
        ("triggered", "env_decrypt(value)"),
    ] {
        let right = format!("SELECT count(*) FROM {table} WHERE {opened} = '{table} ' || id");
        assert_eq!(client.one::<i64>(&right, &[]), 50, "{table}");
    }
}

/// What the columns hold that a dump carries as it is.
fn stored(client: &mut Client) -> String {
    client.one(
        "SELECT md5(string_agg(value::text, ',' ORDER BY id, value)) FROM
             (SELECT id, value FROM explicit UNION ALL SELECT id, value FROM triggered) AS both_tables",
        &[],
    )
}

#[test]
fn dump_and_restore_keep_every_value_and_encrypt_none_twice() {
    let fixture = fixture();
    fixture.cluster.sql("CREATE DATABASE source");
    fixture.cluster.sql("CREATE DATABASE target");
    let mut source = fixture.cluster.connect("postgres", "source");
    source.run("CREATE EXTENSION envelope_pg");
    make_tables(&mut source, &fixture.key_id);
    check_tables(&mut source);
    let before = stored(&mut source);

    let path = fixture.cluster.directory().join("dump").display().to_string();
    fixture.cluster.run("pg_dump", &["--format=custom", "--file", &path, "source"]);
    fixture.cluster.run("pg_restore", &["--exit-on-error", "--dbname=target", &path]);
    let mut target = fixture.cluster.connect("postgres", "target");
    check_tables(&mut target);
    assert_eq!(stored(&mut target), before);

    // With the tables in place, COPY fires the trigger.
    target.run("TRUNCATE explicit, generated, triggered");
    fixture.cluster.run("pg_restore", &["--exit-on-error", "--data-only", "--dbname=target", &path]);
    check_tables(&mut target);
    assert_eq!(stored(&mut target), before);

    let text = fixture.cluster.run("pg_dump", &["source"]).stdout;
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("env_encrypt_generated") && text.contains("CREATE EXTENSION"));
    for plain in ["explicit 7", "triggered 7"] {
        assert!(!text.contains(&format!("{plain}\n")), "{plain} is in the dump");
    }
}

#[test]
fn upsert_and_update_through_a_trigger_encrypt_once() {
    let fixture = fixture();
    let mut client = fixture.connect();
    client.run("DROP TABLE IF EXISTS explicit, generated, triggered; DROP FUNCTION IF EXISTS encrypt_secret()");
    make_tables(&mut client, &fixture.key_id);
    client.run(
        "INSERT INTO triggered VALUES (7, 'again'), (51, 'new')
             ON CONFLICT (id) DO UPDATE SET value = EXCLUDED.value;
         UPDATE triggered SET value = 'updated' WHERE id = 8;
         UPDATE triggered SET value = value WHERE id = 9;
         UPDATE generated SET plain = 'changed' WHERE id = 7",
    );
    let opened: Vec<String> =
        client.column("SELECT env_decrypt(value) FROM triggered WHERE id IN (7, 8, 9, 51) ORDER BY id");
    assert_eq!(opened, ["again", "updated", "triggered 9", "new"]);
    assert_eq!(client.one::<String>("SELECT env_decrypt(value) FROM generated WHERE id = 7", &[]), "changed");
}

#[test]
fn values_survive_restart_and_crash() {
    let fixture = fixture();
    let mut client = fixture.connect();
    client.run("CREATE TABLE survivor (value bytea)");
    client.execute("INSERT INTO survivor SELECT env_encrypt('a text'::text, $1)", &[&fixture.key_id]).expect("a row");
    for crash in [false, true] {
        if crash {
            fixture.cluster.sql("CHECKPOINT");
            fixture.cluster.stop_immediate();
            fixture.cluster.start_again();
        } else {
            fixture.cluster.restart();
        }
        let mut client = fixture.connect();
        assert_eq!(client.one::<String>("SELECT env_decrypt(value) FROM survivor", &[]), "a text");
        client.encrypt("a text", &fixture.key_id);
    }
}

#[test]
fn a_hot_standby_decrypts() {
    let fixture = fixture();
    let mut primary = fixture.connect();
    primary.run("CREATE TABLE replicated (id int, value bytea)");
    let insert = "INSERT INTO replicated SELECT 1, env_encrypt('before'::text, $1)";
    primary.execute(insert, &[&fixture.key_id]).expect("a row");
    let standby = fixture.cluster.standby();
    let insert = "INSERT INTO replicated SELECT 2, env_encrypt('after'::text, $1)";
    primary.execute(insert, &[&fixture.key_id]).expect("a row");

    let mut reader = standby.connect("postgres", "postgres");
    wait_until("the standby has both rows", || reader.one::<i64>("SELECT count(*) FROM replicated", &[]) == 2);
    let opened: Vec<String> = reader.column("SELECT env_decrypt(value) FROM replicated ORDER BY id");
    assert_eq!(opened, ["before", "after"]);
    // Nothing is written, so a standby can encrypt as well.
    let value = reader.encrypt("on the standby", &fixture.key_id);
    assert_eq!(primary.decrypt(&value), "on the standby");
    assert_eq!(reader.one::<String>("SELECT env_key_id(value) FROM replicated LIMIT 1", &[]), fixture.key_id);
}

#[test]
fn parallel_workers_decrypt_under_the_same_rules() {
    let fixture = fixture();
    let mut client = fixture.connect();
    client.run("CREATE TABLE in_parallel (id int, value bytea)");
    let insert =
        "INSERT INTO in_parallel SELECT id, env_encrypt('row ' || id, $1) FROM generate_series(1, 20000) AS id";
    client.execute(insert, &[&fixture.key_id]).expect("the rows are encrypted");
    client.run("ANALYZE in_parallel");

    let mut reader = fixture.connect();
    reader.run(
        "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
         SET max_parallel_workers_per_gather = 2; SET parallel_leader_participation = off",
    );
    let query = "SELECT count(*) FROM in_parallel WHERE env_decrypt(value) = 'row ' || id";
    let plan: Vec<String> = reader.column(&format!("EXPLAIN (ANALYZE, COSTS OFF) {query}"));
    assert!(plan.iter().any(|line| line.contains("Workers Launched: 2")), "{plan:#?}");
    fixture.proxy.reset_counts();
    assert_eq!(reader.one::<i64>(query, &[]), 20_000);
    let decrypts = fixture.proxy.calls("Decrypt");
    assert!((1..=3).contains(&decrypts), "{decrypts} Decrypt calls");

    reader.run(&format!("SET envelope_pg.allowed_keys = '{}'", fixture.new_key().arn));
    reader.fail(query, &[]).with("42501").says(&fixture.key_id);
    reader.run("RESET envelope_pg.allowed_keys");
    assert_eq!(reader.one::<i64>(query, &[]), 20_000);
}

#[test]
fn the_extension_can_be_dropped_and_created_again() {
    let fixture = fixture();
    fixture.cluster.sql("CREATE DATABASE again");
    let mut client = fixture.cluster.connect("postgres", "again");
    client.run("CREATE EXTENSION envelope_pg");
    let value = client.encrypt("a text", &fixture.key_id);
    client.run("DROP EXTENSION envelope_pg");
    client.fail_to_decrypt(&value).with("42883");
    client.run("CREATE EXTENSION envelope_pg");
    assert_eq!(client.decrypt(&value), "a text");
    client.run(
        "CREATE TABLE holds (plain text, value bytea GENERATED ALWAYS AS
        (env_encrypt_generated(plain, 'local:x')) STORED)",
    );
    // 14 drops the column with the function.
    if client.one::<bool>("SELECT current_setting('server_version_num')::int >= 150000", &[]) {
        client.fail("DROP EXTENSION envelope_pg", &[]).with("2BP01");
    }
}

/// The mask of blocked signals of each thread but the main one.
fn blocked_signals_of_threads(pid: i32) -> Vec<u64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    threads
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| !path.ends_with(pid.to_string()))
        .map(|path| {
            let status = fs::read_to_string(path.join("status")).expect("the thread runs");
            let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).expect("it has a mask");
            u64::from_str_radix(mask.trim(), 16).expect("hexadecimal digits")
        })
        .collect()
}

#[test]
fn a_thread_starts_with_the_first_call_and_takes_no_signals() {
    // SIGKILL and SIGSTOP cannot be blocked.
    const ALL_STANDARD: u64 = ((1 << 31) - 1) & !(1 << 8) & !(1 << 18);
    let fixture = fixture();
    let value = fixture.connect().encrypt("a text", &fixture.key_id);
    let mut client = fixture.connect();
    let pid = client.backend();
    client.run("LOAD 'envelope_pg'");
    assert_eq!(client.one::<String>("SELECT env_key_id($1)", &[&value]), fixture.key_id);
    client.fail("SELECT env_encrypt('a text'::text, 'not a key')", &[]);
    assert_eq!(blocked_signals_of_threads(pid).len(), 0, "headers and wrong arguments need no thread");

    client.decrypt(&value);
    client.encrypt("a text", &fixture.key_id);
    let masks = blocked_signals_of_threads(pid);
    println!("{} threads beside the main one", masks.len());
    assert!(!masks.is_empty() && masks.len() <= 3, "{} threads", masks.len());
    for mask in masks {
        assert_eq!(mask & ALL_STANDARD, ALL_STANDARD, "{mask:x}");
    }
    drop(client);
    wait_until("the backend has ended", || !process::is_running(pid));
    // What becomes of a parallel worker of another test, whose leader ends it, is in the log of this server, too.
    let log = fixture.cluster.log();
    for words in [format!("(PID {pid})"), "crash".into(), "panicked".into()] {
        assert!(!log.contains(&words), "{words}: {log}");
    }
}

#[test]
fn the_server_log_holds_no_plaintext_and_no_key() {
    const PLAINTEXT: &str = "plaintext-that-nobody-may-log";
    let builder = Cluster::builder().setting("log_min_messages", "debug1").setting("log_min_error_statement", "panic");
    let local = Fixture::local_with(builder);
    let mut client = local.connect();
    let value = client.encrypt(PLAINTEXT, "local:dev");
    assert_eq!(client.decrypt(&value), PLAINTEXT);
    let mut damaged = value.clone();
    *damaged.last_mut().expect("a value is not empty") ^= 1;
    client.fail_to_decrypt(&damaged).with("22000");
    client.fail("SELECT env_decrypt_bytea($1)", &[&value]).with("42804");
    client.fail("SELECT env_encrypt($1::text, 'local:nobody')", &[&PLAINTEXT]).with("42704");
    client.fail("SELECT env_encrypt($1::text, 'local:dev', '[]')", &[&PLAINTEXT]).with("22023");
    drop(client);
    let log = local.cluster.log();
    assert!(log.contains("22000") && log.contains("42704"), "errors are logged");
    let keyring = fs::read_to_string(local.keyring()).expect("the key file can be read");
    let key = keyring.split('"').max_by_key(|word| word.len()).expect("the file has a key");
    for secret in [PLAINTEXT, key] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }

    let builder = Cluster::builder().setting("log_min_messages", "debug1").setting("log_min_error_statement", "panic");
    let kms = Fixture::kms_with(builder);
    let mut client = kms.connect();
    let value = client.encrypt(PLAINTEXT, &kms.key_id);
    kms.proxy.set(testkit::Fault::Nonsense(testkit::Nonsense::ShortPlaintext));
    client.run("SELECT env_cache_flush()");
    client.fail_to_decrypt(&value).with("58000");
    kms.proxy.set(testkit::Fault::HalfResponse);
    client.fail_to_decrypt(&value).with("58000");
    let log = kms.cluster.log();
    for secret in [PLAINTEXT, "not-a-secret-of-anybody", "AAAAAAAAAAAAAAAA", "Plaintext"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}
