//! Index keys on real servers: sessions that learn of changes, dumps, standbys, refusals; and a rotation under writers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::{fs, thread};

use testkit::{Client, Fixture, Session, wait_until};

const TOKEN: &str = "SELECT env_blind_index('a value', 'index')";

fn create_index_key(client: &mut Client, key_id: &str) {
    client.one::<i32>("SELECT env_create_index_key('index', $1)", &[&key_id]);
}

#[test]
fn sessions_share_an_index_key_and_learn_of_its_versions() {
    let fixture = Fixture::with_broker();
    let (mut one, mut other) = (fixture.connect(), fixture.connect());
    create_index_key(&mut one, &fixture.key_id);
    let first: Vec<u8> = one.one(TOKEN, &[]);
    fixture.proxy.reset_counts();
    assert_eq!(other.one::<Vec<u8>>(TOKEN, &[]), first);
    assert_eq!(fixture.kms_calls().1, 0, "the broker has it");
    // Parallel workers, too.
    other.run(
        "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
               CREATE TABLE many AS SELECT n FROM generate_series(1, 20000) AS n; ANALYZE many",
    );
    let plan = other.column::<String>("EXPLAIN SELECT count(DISTINCT env_blind_index(n, 'index')) FROM many WHERE env_blind_index(n, 'index') IS NOT NULL");
    assert!(plan.iter().any(|line| line.contains("Parallel Seq Scan")), "{plan:?}");
    let distinct = "SELECT count(DISTINCT token) FROM (SELECT env_blind_index(n, 'index') AS token FROM many WHERE env_blind_index(n, 'index') IS NOT NULL) AS t";
    assert_eq!(other.one::<i64>(distinct, &[]), 20_000);

    one.run("BEGIN");
    assert_eq!(one.one::<i32>("SELECT env_rotate_index_key('index')", &[]), 2);
    let second: Vec<u8> = one.one(TOKEN, &[]);
    assert_ne!(second, first);
    assert_eq!(other.one::<Vec<u8>>(TOKEN, &[]), first, "it is not committed");
    one.run("COMMIT");
    assert_eq!(other.one::<Vec<u8>>(TOKEN, &[]), second);
    assert_eq!(
        other.one::<Vec<Vec<u8>>>("SELECT env_blind_index_candidates('a value', 'index')", &[]),
        [first, second]
    );
}

#[test]
fn an_index_key_is_refused_and_flushed_as_a_data_key_is() {
    let fixture = Fixture::kms();
    let mut client = fixture.connect();
    create_index_key(&mut client, &fixture.key_id);
    let token: Vec<u8> = client.one(TOKEN, &[]);
    client.run("SET envelope_pg.allowed_keys = 'local:other'");
    client.fail(TOKEN, &[]).with("42501");
    client.run("RESET envelope_pg.allowed_keys");
    let uses = "SELECT uses FROM env_stat_cache WHERE encryption_context ->> 'name' = 'index' AND purpose = 'decrypt'";
    let before: i64 = client.one(uses, &[]);
    assert_eq!(client.one::<Vec<u8>>(TOKEN, &[]), token);
    assert!(client.one::<i64>(uses, &[]) > before, "uses are counted");
    fixture.proxy.reset_counts();
    client.run("SELECT env_cache_flush()");
    assert_eq!(client.one::<Vec<u8>>(TOKEN, &[]), token);
    assert_eq!(fixture.kms_calls(), (0, 1));
}

#[test]
fn a_dump_carries_index_keys_and_a_standby_has_them() {
    let fixture = Fixture::with_broker();
    let mut primary = fixture.connect();
    create_index_key(&mut primary, &fixture.key_id);
    primary.run("SELECT env_rotate_index_key('index'); SELECT env_retire_index_key('index', 1)");
    let token: Vec<u8> = primary.one(TOKEN, &[]);
    let cluster = &fixture.cluster;
    cluster.sql("CREATE DATABASE target");
    let path = cluster.directory().join("dump").display().to_string();
    cluster.run("pg_dump", &["--format=custom", "--file", &path, "postgres"]);
    cluster.run("pg_restore", &["--exit-on-error", "--dbname=target", &path]);
    let mut target = cluster.connect("postgres", "target");
    assert_eq!(target.one::<Vec<u8>>(TOKEN, &[]), token);
    assert_eq!(target.one::<i64>("SELECT count(*) FROM env_index_key WHERE retired IS NOT NULL", &[]), 1);

    let standby = cluster.standby();
    let mut reader = standby.connect("postgres", "postgres");
    let replayed = |primary: &mut Client, reader: &mut Client| {
        let written: String = primary.one("SELECT pg_current_wal_insert_lsn()::text", &[]);
        // Of a commit that need not wait for the disk.
        primary.run("SELECT pg_switch_wal()");
        wait_until("the standby has replayed", || {
            reader.one("SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", &[&written])
        });
    };
    replayed(&mut primary, &mut reader);
    assert_eq!(reader.one::<Vec<u8>>(TOKEN, &[]), token);
    primary.run("SELECT env_rotate_index_key('index')");
    let newer: Vec<u8> = primary.one(TOKEN, &[]);
    replayed(&mut primary, &mut reader);
    assert_eq!(reader.one::<Vec<u8>>(TOKEN, &[]), newer, "its sessions learn of new versions");
}

/// The SQL of docs/SEARCH.md from a heading to the next one, statement by statement.
fn statements(heading: &str) -> Vec<String> {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/SEARCH.md")).expect("the page");
    let section = page.split("\n## ").find(|section| section.starts_with(heading)).expect("the section");
    let blocks = section.split("```sql\n").skip(1).map(|block| block.split("```").next().expect("its end"));
    let is_done = |line: &str| line.split("--").next().is_some_and(|code| code.trim_end().ends_with(';'));
    let mut statements = vec![String::new()];
    for line in blocks.flat_map(str::lines) {
        let last = statements.last_mut().expect("one");
        last.push_str(line);
        last.push('\n');
        if is_done(line) {
            statements.push(String::new());
        }
    }
    statements.retain(|statement| !statement.trim().is_empty());
    statements
}

#[test]
fn rotation_of_a_unique_index_runs_word_by_word() {
    let fixture = Fixture::local();
    let with_key = |statement: &String| statement.replace("alias/people", &fixture.key_id);
    let mut owner = fixture.connect();
    owner.run("CREATE ROLE app_writer");
    for statement in statements("Set up") {
        owner.run(&with_key(&statement));
    }
    owner.run("INSERT INTO person (id, ssn) SELECT n, (100000000 + n)::text FROM generate_series(2, 2000) AS n");

    // Writers insert new persons, and one that is there already: never twice, at no moment.
    let (done, written, refused) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for writer in 0..2_i64 {
            let (fixture, done, written, refused) = (&fixture, &done, &written, &refused);
            scope.spawn(move || {
                let mut client = fixture.connect();
                for n in 0_i64.. {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    let id = 10_000 + 2 * n + writer;
                    let ssn = if n % 3 == 0 { 100_000_000 + 2 + n % 1_000 } else { 200_000_000 + id };
                    match client.execute("INSERT INTO person (id, ssn) VALUES ($1, $2::bigint::text)", &[&id, &ssn]) {
                        Ok(_) => {
                            assert_ne!(n % 3, 0, "a person was inserted twice");
                            written.fetch_add(1, Ordering::Relaxed)
                        }
                        Err(error) => {
                            assert_eq!(error.code().map(|code| code.code()), Some("23505"), "{error:?}");
                            refused.fetch_add(1, Ordering::Relaxed)
                        }
                    };
                }
            });
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for statement in statements("Rotate an index key") {
                owner.run(&with_key(&statement));
                let so_far = written.load(Ordering::Relaxed);
                wait_until("writers go on", || written.load(Ordering::Relaxed) > so_far);
            }
        }));
        done.store(true, Ordering::Relaxed);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
    assert!(refused.load(Ordering::Relaxed) > 0);
    let right = "SELECT count(*) FROM person WHERE ssn_token_2 = env_blind_index(env_normalize(env_decrypt(ssn_enc, 'person.ssn:' || id), '{digits}'), 'person.ssn', version => 2)";
    let rows: i64 = owner.one("SELECT count(*) FROM person", &[]);
    assert_eq!(owner.one::<i64>(right, &[]), rows);
    assert_eq!(rows as u64, 2_000 + written.load(Ordering::Relaxed));
    assert_eq!(owner.column::<i32>("SELECT version FROM env_index_key WHERE retired IS NULL"), [2]);
}

#[test]
fn a_fill_that_was_canceled_goes_on_where_it_was() {
    let fixture = Fixture::local();
    let (mut owner, mut blocker, mut watcher) = (fixture.connect(), fixture.connect(), fixture.connect());
    create_index_key(&mut owner, &fixture.key_id);
    owner.run(
        &r#"CREATE TABLE late (id int PRIMARY KEY, a text, e bytea, t bytea);
            INSERT INTO late (id, e) SELECT n, env_encrypt('value ' || n, '@key') FROM generate_series(1, 2000) AS n;
            CREATE TRIGGER z BEFORE INSERT OR UPDATE ON late FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(
                '{"source": "a", "target": "e", "key_id": "@key", "tokens": [{"column": "t", "index": "index"}]}')"#
            .replace("@key", &fixture.key_id),
    );
    let fill = "CALL env_index_column('late', 't', batch_blocks => 1)";
    let filler: i32 = owner.one("SELECT pg_backend_pid()", &[]);
    blocker.run("BEGIN; SELECT FROM late WHERE id = 2000 FOR UPDATE");
    thread::scope(|scope| {
        let filling = scope.spawn(|| owner.fail(fill, &[]).with("57014"));
        wait_until("it waits for the locked row", || {
            watcher.one("SELECT wait_event_type = 'Lock' IS TRUE FROM pg_stat_activity WHERE pid = $1", &[&filler])
        });
        watcher.run(&format!("SELECT pg_cancel_backend({filler})"));
        filling.join().expect("it is canceled");
    });
    blocker.run("ROLLBACK");
    watcher.run("CREATE TABLE filled AS SELECT id, ctid AS place FROM late WHERE t IS NOT NULL");
    let filled: i64 = watcher.one("SELECT count(*) FROM filled", &[]);
    assert!((1..2_000).contains(&filled), "{filled} rows are filled");
    owner.run(fill);
    assert_eq!(
        owner.one::<i64>("SELECT count(*) FROM late WHERE t = env_blind_index(env_decrypt(e), 'index')", &[]),
        2_000
    );
    let untouched = "SELECT count(*) FROM late JOIN filled USING (id) WHERE late.ctid = filled.place";
    assert_eq!(owner.one::<i64>(untouched, &[]), filled, "what was filled is not filled again");
}
