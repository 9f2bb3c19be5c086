//! A first scan over many data keys: those of the values on the same page are asked for together.

use std::thread;
use std::time::{Duration, Instant};

use testkit::{Client, Fault, Fixture, Session};

const DATA_KEYS: i32 = 100;
const DELAY: Duration = Duration::from_millis(20);
const READ: &str = "SELECT count(*) FROM scanned WHERE env_decrypt(value) = 'row ' || id";

/// Two values of each of many data keys, the data keys one after the other. A plain column first: the place of the encrypted one
/// in the row differs.
fn table(fixture: &Fixture) {
    let mut client = fixture.connect();
    client.run("CREATE TABLE scanned (note text, id int, value bytea)");
    let insert = "INSERT INTO scanned SELECT repeat('x', id % 7), id, env_encrypt('row ' || id, $1,
            jsonb_build_object('n', (id % $2::int)::text)) FROM generate_series(1, 2 * $2::int) AS id";
    client.execute(insert, &[&fixture.key_id, &DATA_KEYS]).expect("the rows are written");
    client.run("CREATE INDEX ON scanned (id)");
    client.run("VACUUM (FREEZE, ANALYZE) scanned");
    fixture.proxy.set(Fault::Delay(DELAY));
}

/// A session without data keys, on a server without any.
fn cold(fixture: &Fixture, settings: &str) -> Client {
    fixture.connect().run("SELECT env_cache_flush(true)");
    // Not only the data keys, but also in what order they were asked for.
    fixture.cluster.stop_broker();
    fixture.proxy.reset_counts();
    let mut client = fixture.connect();
    client.run(settings);
    client
}

fn timed(client: &mut Client, query: &str, rows: i64) -> Duration {
    let started = Instant::now();
    assert_eq!(client.one::<i64>(query, &[]), rows, "{query}");
    started.elapsed()
}

fn unwrapped_ahead(fixture: &Fixture) -> i64 {
    fixture.connect().one("SELECT coalesce(sum(unwrapped_ahead), 0)::bigint FROM env_stat_broker", &[])
}

#[test]
fn a_first_scan_waits_for_many_at_a_time() {
    let fixture = Fixture::with_broker();
    table(&fixture);
    let all = i64::from(2 * DATA_KEYS);
    let mut client = cold(&fixture, "SET envelope_pg.look_ahead = off");
    let serial = timed(&mut client, READ, all);
    assert_eq!((fixture.kms_calls(), unwrapped_ahead(&fixture)), ((0, 100), 0), "switched off");
    let mut client = cold(&fixture, "");
    let ahead = timed(&mut client, READ, all);
    println!("100 data keys at 20 ms: one after the other {serial:?}, ahead {ahead:?}");
    assert_eq!(fixture.kms_calls(), (0, 100), "no call for what is not there, and none twice");
    assert!(unwrapped_ahead(&fixture) > 70, "{}", unwrapped_ahead(&fixture));
    assert!(ahead < serial / 2, "{serial:?}, {ahead:?}");
    assert_eq!(timed(&mut client, READ, all).as_secs(), 0);
    assert_eq!(fixture.kms_calls(), (0, 100));
    // Calls that were made ahead are calls of the statement.
    let mut client = cold(&fixture, "SET envelope_pg.max_kms_calls_per_statement = 100");
    timed(&mut client, READ, all);
    assert_eq!((fixture.kms_calls(), unwrapped_ahead(&fixture)), ((0, 100), 0), "a limit: none ahead of its need");
}

/// Three data keys on a page: those of the pages behind it are asked for, too.
#[test]
fn few_data_keys_on_a_page() {
    let fixture = Fixture::with_broker();
    let mut client = fixture.connect();
    client.run("CREATE TABLE scanned (id int, value bytea)");
    let insert =
        "INSERT INTO scanned SELECT id, env_encrypt('row ' || id, $1, jsonb_build_object('n', (id / 10)::text))
        FROM generate_series(0, 959) AS id";
    client.execute(insert, &[&fixture.key_id]).expect("the rows are written");
    client.run("VACUUM (FREEZE, ANALYZE) scanned");
    let pages: i64 = client.one("SELECT count(DISTINCT (ctid::text::point)[0]) FROM scanned", &[]);
    assert!((25..80).contains(&pages), "{pages} pages for 96 data keys");
    let mut client = cold(&fixture, "");
    timed(&mut client, READ, 960);
    assert_eq!(fixture.kms_calls(), (0, 96));
    assert!(unwrapped_ahead(&fixture) >= 80, "{}", unwrapped_ahead(&fixture));
    // Once the scan does not go on, little was asked for that nobody needs.
    let mut client = cold(&fixture, "");
    timed(&mut client, "SELECT count(env_decrypt(value)) FROM (SELECT value FROM scanned LIMIT 25) AS s", 25);
    let (_, calls) = fixture.kms_calls();
    assert!((3..=20).contains(&calls), "{calls}");
}

#[test]
fn scans_of_other_kinds() {
    let fixture = Fixture::with_broker();
    table(&fixture);
    let all = i64::from(2 * DATA_KEYS);
    let by_index = "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off;";
    let ordered = "SELECT count(text) FROM (SELECT env_decrypt(value) AS text FROM scanned ORDER BY id OFFSET 0) AS s";
    let joined = "SELECT count(env_decrypt(value)) FROM generate_series(1, 200) AS n JOIN scanned ON id = n";
    let parallel = "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
        SET max_parallel_workers_per_gather = 2;";
    let nested = format!("{by_index} SET enable_hashjoin = off; SET enable_mergejoin = off;");
    for (settings, query) in [(by_index, ordered), (&nested, joined), (parallel, READ)] {
        let mut client = cold(&fixture, settings);
        timed(&mut client, query, all);
        assert_eq!(fixture.kms_calls(), (0, 100), "{query}");
        assert!(unwrapped_ahead(&fixture) > 40, "{query}: {}", unwrapped_ahead(&fixture));
    }
    // What needs one row asks for one data key.
    let mut client = cold(&fixture, by_index);
    timed(&mut client, "SELECT count(env_decrypt(value)) FROM scanned WHERE id = 7", 1);
    assert_eq!(fixture.kms_calls(), (0, 1));
}

#[test]
fn rows_that_are_gone_and_keys_that_are_not_allowed_cause_no_call() {
    let fixture = Fixture::with_broker();
    table(&fixture);
    let other = fixture.new_key();
    let mut client = fixture.connect();
    client.run("DELETE FROM scanned WHERE id % 100 >= 50");
    // Which sets the hint bits.
    client.run("SELECT count(*) FROM scanned");
    let mut client = cold(&fixture, "");
    timed(&mut client, READ, 100);
    assert_eq!(fixture.kms_calls(), (0, 50), "deleted rows");
    // Not yet committed, and of another session.
    let mut writer = fixture.connect();
    writer.run("BEGIN");
    let insert = "INSERT INTO scanned SELECT '', 0, env_encrypt('other', $1, jsonb_build_object('other', n::text))
        FROM generate_series(1, 10) AS n";
    writer.execute(insert, &[&other.arn]).expect("the rows are written");
    let mut client = cold(&fixture, "");
    timed(&mut client, READ, 100);
    assert_eq!(fixture.kms_calls(), (0, 50), "rows that are not committed");
    writer.run("COMMIT");
    let mut client = cold(&fixture, &format!("SET envelope_pg.allowed_keys = '{}'", fixture.key_id));
    let allowed =
        format!("SELECT count(env_decrypt(value)) FROM scanned WHERE env_key_id(value) = '{}'", fixture.key_id);
    timed(&mut client, &allowed, 100);
    assert_eq!(fixture.kms_calls(), (0, 50), "another key than the allowed one");
}

#[test]
fn scans_while_others_change_the_pages() {
    let fixture = Fixture::with_broker();
    table(&fixture);
    fixture.proxy.clear();
    let deadline = Instant::now() + Duration::from_secs(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = fixture.connect();
            while Instant::now() < deadline {
                client.run("UPDATE scanned SET note = repeat('y', id % 50) WHERE id % 5 = 0");
                client.run("VACUUM scanned");
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                while Instant::now() < deadline {
                    let mut client = fixture.connect();
                    client.run("SELECT env_cache_flush()");
                    timed(&mut client, READ, i64::from(2 * DATA_KEYS));
                }
            });
        }
    });
}
