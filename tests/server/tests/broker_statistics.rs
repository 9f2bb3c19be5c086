//! The statistics against what the proxy counted.

use std::thread;
use std::time::Duration;

use testkit::{Client, Cluster, Fault, Fixture, Rule, Session, keep_doing};

/// A count of the broker's calls, added up over all keys.
fn broker_count(client: &mut Client, column: &str, operation: &str) -> i64 {
    let query = format!(
        "SELECT coalesce(sum({column}), 0)::bigint FROM env_stat_kms WHERE source = 'broker' AND operation = $1"
    );
    client.one(&query, &[&operation])
}

#[test]
fn calls_errors_and_retries_are_those_that_the_proxy_saw() {
    let fixture = Fixture::with_broker_and(Cluster::builder().setting("envelope_pg.kms_max_attempts", "2"));
    let mut client = fixture.connect();
    let value = client.encrypt("a text", &fixture.key_id);
    // Another key for each fault, as a breaker is for one key; and for the key of a refusal.
    let faults: [(Fault, &str, &str); 6] = [
        (Fault::kms_error(400, "ThrottlingException"), "errors_throttled", "53400"),
        (Fault::kms_error(400, "AccessDeniedException"), "errors_access_denied", "42501"),
        (Fault::kms_error(400, "DisabledException"), "errors_key_unusable", "55000"),
        (Fault::kms_error(400, "NotFoundException"), "errors_not_found", "42704"),
        (Fault::kms_error(500, "KMSInternalException"), "errors_unreachable", "58000"),
        (Fault::Nonsense(testkit::Nonsense::ShortPlaintext), "errors_untrusted", "58000"),
    ];
    for (fault, column, sqlstate) in faults {
        let key = fixture.new_key().arn;
        fixture.proxy.set(Rule::every(fault).for_key(&key));
        client.fail_to_encrypt(&key).with(sqlstate);
        let row = client
            .query_one(
                &format!(
                    "SELECT calls, errors, {column}, retries, throttled_attempts, cardinality(latency_buckets),
                            (SELECT sum(b) FROM unnest(latency_buckets) AS b)::bigint, latency_ms, max_latency_ms,
                            cardinality(latency_bounds_ms)
                     FROM env_stat_kms WHERE source = 'broker' AND operation = 'GenerateDataKey' AND key_id = $1"
                ),
                &[&key],
            )
            .unwrap_or_else(|error| panic!("{column}: {error:?}"));
        let attempts = fixture.proxy.calls_for(&key, "GenerateDataKey") as i64;
        let numbers: Vec<i64> = (0..5).map(|at| row.get(at)).collect();
        let throttled = if column == "errors_throttled" { attempts } else { 0 };
        assert_eq!(numbers, [1, 1, 1, attempts - 1, throttled], "{column}, {attempts} attempts");
        assert_eq!((row.get::<_, i32>(5), row.get::<_, i64>(6)), (12, 1), "{column}: one call in the histogram");
        assert_eq!(row.get::<_, i32>(9), 11);
        let (sum, max): (f64, f64) = (row.get(7), row.get(8));
        assert!(max > 0.0 && (sum - max).abs() < 1e-6, "{column}: {sum} {max}");
    }
    fixture.proxy.clear();
    // All together: every attempt that came to the proxy is a call or a retry.
    for operation in ["GenerateDataKey", "Decrypt"] {
        let seen = broker_count(&mut client, "calls + retries", operation);
        assert_eq!(seen, fixture.proxy.calls(operation) as i64, "{operation}");
    }

    // Cancelled in the middle.
    client.run("SELECT env_stat_reset(); SELECT env_cache_flush(true)");
    assert_eq!(client.one::<i64>("SELECT count(*) FROM env_stat_kms", &[]), 0, "counted from zero again");
    fixture.proxy.set(Fault::Hang);
    client.run("SET statement_timeout = '200ms'");
    client.fail_to_decrypt(&value).with("57014");
    client.run("RESET statement_timeout");
    fixture.proxy.clear();
    testkit::wait_until("the broker has given the call up", || broker_count(&mut client, "cancelled", "Decrypt") == 1);
    assert_eq!(broker_count(&mut client, "errors", "Decrypt"), 0);
    assert_eq!(broker_count(&mut client, "calls", "Decrypt"), 1);
}

#[test]
fn the_latency_is_that_of_kms() {
    let fixture = Fixture::with_broker();
    fixture.proxy.set(Fault::Delay(Duration::from_millis(150)));
    let mut client = fixture.connect();
    for context in 0..3 {
        let query = format!("SELECT env_encrypt('a text'::text, $1, '{{\"n\": \"{context}\"}}')");
        client.one::<Vec<u8>>(&query, &[&fixture.key_id]);
    }
    let row = client
        .query_one("SELECT latency_ms, max_latency_ms, latency_buckets FROM env_stat_kms", &[])
        .expect("one operation and key");
    let (sum, max, buckets): (f64, f64, Vec<i64>) = (row.get(0), row.get(1), row.get(2));
    assert!(max >= 150.0 && sum >= 450.0 && sum <= 3.0 * max, "{sum} {max}");
    assert_eq!(buckets.iter().sum::<i64>(), 3);
    assert_eq!(buckets[..7].iter().sum::<i64>(), 0, "none took 100 ms or less: {buckets:?}");
}

/// What `env_kms_calls` says: the statement, the transaction, the session.
fn kms_calls(client: &mut Client) -> (i64, i64) {
    let row = client.query_one("SELECT transaction, session FROM env_kms_calls()", &[]).expect("it works");
    (row.get(0), row.get(1))
}

#[test]
fn a_statement_counts_the_calls_that_it_caused() {
    let fixture = Fixture::with_broker();
    let mut client = fixture.connect();
    let query = "WITH sealed AS MATERIALIZED (SELECT env_encrypt('a'::text, $1, jsonb_build_object('n', n::text)) AS value
                     FROM generate_series(1, 3) AS n)
                 SELECT statement FROM (SELECT count(value) FROM sealed) AS done, LATERAL (SELECT * FROM env_kms_calls() WHERE count > 0) AS calls";
    client.run("BEGIN");
    assert_eq!(client.one::<i64>(query, &[&fixture.key_id]), 3);
    assert_eq!(kms_calls(&mut client), (3, 3));
    assert_eq!(client.one::<i64>(query, &[&fixture.key_id]), 0, "they are the session's now");
    client.run("COMMIT");
    assert_eq!(kms_calls(&mut client), (0, 3), "another transaction");
    // Another session has them from the broker.
    let mut other = fixture.connect();
    other.run("BEGIN");
    assert_eq!(other.one::<i64>(query, &[&fixture.key_id]), 0);
    assert_eq!(kms_calls(&mut other), (0, 0));
    assert_eq!(fixture.kms_calls(), (3, 0));
}

#[test]
fn a_limit_counts_calls_that_reach_kms_and_not_those_that_the_broker_answers() {
    let fixture = Fixture::with_broker();
    let mut writer = fixture.connect();
    writer.run("CREATE TABLE limited (value bytea)");
    for n in 0..30 {
        let insert = format!("INSERT INTO limited SELECT env_encrypt('a', $1, '{{\"n\": \"{n}\"}}')");
        writer.execute(&insert, &[&fixture.key_id]).expect("the row is written");
    }
    let read = "SELECT count(env_decrypt(value)) FROM limited";
    let mut reader = fixture.connect();
    reader.run("SET envelope_pg.max_kms_calls_per_statement = 5");
    assert_eq!(reader.one::<i64>(read, &[]), 30, "all of them are in the broker");
    // As many at a time as it likes.
    let mut warming = fixture.connect();
    warming.run("SET envelope_pg.max_kms_calls_per_statement = 5");
    let warmed = "SELECT cold FROM env_warm('limited', 'value')";
    assert_eq!(warming.one::<i64>(warmed, &[]), 30);
    // Of KMS no more than that.
    let mut reader = fixture.connect();
    reader.run("SET envelope_pg.max_kms_calls_per_statement = 5; SELECT env_cache_flush(true)");
    fixture.proxy.reset_counts();
    reader.fail(read, &[]).with("54000");
    assert_eq!(fixture.kms_calls(), (0, 5));
}

/// Half of the data keys are in the broker: only the others count.
#[test]
fn a_limit_that_is_reached_leaves_what_the_broker_has() {
    let fixture = Fixture::with_broker();
    let mut writer = fixture.connect();
    writer.run("CREATE TABLE limited (n int, value bytea)");
    for n in 0..10 {
        let insert = format!("INSERT INTO limited SELECT {n}, env_encrypt('a', $1, '{{\"n\": \"{n}\"}}')");
        writer.execute(&insert, &[&fixture.key_id]).expect("the row is written");
    }
    // Of the page it would ask for others, too.
    writer.run("SELECT env_cache_flush(true); SET envelope_pg.look_ahead = off");
    writer.run("SELECT count(env_decrypt(value)) FROM limited WHERE n >= 5");
    fixture.proxy.reset_counts();
    let mut reader = fixture.connect();
    reader.run("SET envelope_pg.max_kms_calls_per_statement = 5");
    assert_eq!(reader.one::<i64>("SELECT count(env_decrypt(value)) FROM limited", &[]), 10);
    assert_eq!(fixture.kms_calls(), (0, 5));
}

#[test]
fn the_broker_tells_about_itself() {
    let fixture = Fixture::with_broker();
    let mut client = fixture.connect();
    assert_eq!(client.one::<i64>("SELECT count(*) FROM env_stat_broker", &[]), 0, "looking does not start one");
    let value = client.encrypt("a text", &fixture.key_id);
    for _ in 0..4 {
        fixture.connect().decrypt(&value);
    }
    let row = client
        .query_one(
            "SELECT pid, requests, answered_from_memory, data_keys, current_data_keys, connections,
                    started BETWEEN now() - interval '1 minute' AND clock_timestamp()
             FROM env_stat_broker",
            &[],
        )
        .expect("it runs");
    assert_eq!(row.get::<_, i32>(0), fixture.cluster.broker());
    let numbers: Vec<i64> = (1..6).map(|at| row.get(at)).collect();
    assert_eq!(numbers, [5, 4, 1, 1, 1]);
    assert!(row.get::<_, bool>(6));
}

#[test]
fn the_cache_is_shown_without_keys() {
    let fixture = Fixture::with_broker();
    let mut client = fixture.connect();
    let value: Vec<u8> = client.one("SELECT env_encrypt('a'::text, $1, '{\"tenant\": \"1\"}')", &[&fixture.key_id]);
    client.decrypt(&value);
    client.decrypt(&value);
    let rows = client
        .query(
            "SELECT purpose, key_id, dek_id = env_dek_id($1), encryption_context = '{\"tenant\": \"1\"}',
                    age_seconds BETWEEN 0 AND 60, ttl_seconds BETWEEN 800 AND 900, state, uses
             FROM env_stat_cache ORDER BY purpose",
            &[&value],
        )
        .expect("it works");
    assert_eq!(rows.iter().map(|row| row.get(0)).collect::<Vec<String>>(), ["decrypt", "encrypt"]);
    for row in &rows {
        assert_eq!(row.get::<_, String>(1), fixture.key_id);
        assert!((2..6).all(|at| row.get::<_, bool>(at)));
        assert_eq!(row.get::<_, String>(6), "fresh");
    }
    client.run("SET envelope_pg.cache_ttl = '1s'");
    client.see_aged(1.0);
    let states: Vec<String> = client.column("SELECT DISTINCT state FROM env_stat_cache");
    assert_eq!(states, ["expired"]);
    client.run("SELECT env_cache_flush()");
    assert_eq!(client.one::<i64>("SELECT count(*) FROM env_stat_cache", &[]), 0);
}

#[test]
fn the_session_shows_its_own_calls_where_there_is_no_broker() {
    let fixture = Fixture::kms();
    let mut client = fixture.connect();
    client.encrypt("a text", &fixture.key_id);
    let row = client.query_one("SELECT source, operation, key_id, calls FROM env_stat_kms", &[]).expect("one row");
    let found: (String, String, String, i64) = (row.get(0), row.get(1), row.get(2), row.get(3));
    assert_eq!(found, ("session".into(), "GenerateDataKey".into(), fixture.key_id.clone(), 1));
    client.run("SELECT env_stat_reset()");
    assert_eq!(client.one::<i64>("SELECT count(*) FROM env_stat_kms", &[]), 0);
}

#[test]
fn who_may_see_what() {
    let fixture = Fixture::with_broker();
    fixture.connect().encrypt("a text", &fixture.key_id);
    const SERVER: [&str; 2] = ["SELECT count(*) FROM env_stat_kms", "SELECT count(*) FROM env_stat_broker"];
    const OWN: &str = "SELECT count(*) FROM env_stat_cache";
    const ADMIN: [&str; 2] = ["SELECT env_stat_reset()", "SELECT env_cache_flush(true)"];
    let may = |client: &mut Client, query: &str, expected: bool| match (client.query(query, &[]), expected) {
        (Ok(_), true) => {}
        (Err(error), false) => assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{query}"),
        (result, _) => panic!("{query}: {expected} expected, {:?}", result.map(|rows| rows.len())),
    };
    for (group, server, own, admin) in [
        ("pg_monitor", true, true, false),
        ("envelope_admin", true, true, true),
        ("envelope_decrypt", false, true, false),
        ("envelope_encrypt", false, true, false),
        ("envelope_rotate", false, true, false),
    ] {
        let mut client = fixture.connect_as(&format!("of_{group}"), &[group]);
        SERVER.iter().for_each(|query| may(&mut client, query, server));
        may(&mut client, OWN, own);
        ADMIN.iter().for_each(|query| may(&mut client, query, admin));
    }
    let mut nobody = fixture.connect_as("of_nothing", &[]);
    SERVER.iter().chain([&OWN]).chain(&ADMIN).for_each(|query| may(&mut nobody, query, false));
    nobody.run("SELECT * FROM env_kms_calls()");
}

/// What docs/ gives to the exporter.
#[test]
fn the_queries_for_prometheus_run_and_have_the_columns_that_they_say() {
    let fixture = Fixture::with_broker();
    let value = fixture.connect().encrypt("a text", &fixture.key_id);
    fixture.connect().decrypt(&value);
    let file = include_str!("../../../docs/prometheus/queries.yaml");
    let mut queries = 0;
    for part in file.split("\n  query: |\n").skip(1) {
        let (query, metrics) = part.split_once("\n  metrics:\n").expect("a query has metrics");
        let rows = fixture.connect().query(query, &[]).unwrap_or_else(|error| panic!("{query}: {error:?}"));
        let row = rows.first().unwrap_or_else(|| panic!("no row: {query}"));
        let mut columns: Vec<_> = row.columns().iter().map(|column| column.name().to_owned()).collect();
        // The exporter makes three metrics of the histogram's four columns.
        columns.retain(|column| !["_bucket", "_sum", "_count"].iter().any(|end| column.ends_with(end)));
        let metrics = metrics.lines().filter_map(|line| line.strip_prefix("    - "));
        let metrics: Vec<_> = metrics.filter_map(|line| Some(line.split_once(':')?.0.to_owned())).collect();
        assert_eq!(columns, metrics, "{query}");
        queries += 1;
    }
    assert_eq!(queries, file.matches("query:").count());
}

/// Who made the calls: through the broker or without it, and however many roles there are.
#[test]
fn calls_are_counted_by_database_and_role() {
    let fixture = Fixture::with_broker();
    let mut app = fixture.connect_as("app", &["envelope_encrypt", "envelope_decrypt"]);
    let value = app.encrypt("a text", &fixture.key_id);
    app.decrypt(&value);
    let mut report = fixture.connect_as("report", &["envelope_decrypt"]);
    report.decrypt(&value);
    let mut watcher = fixture.connect();
    let calls = |watcher: &mut Client, role: &str| -> Vec<i64> {
        let query = "SELECT generate_data_key, decrypt, errors, refused FROM env_stat_role WHERE role = $1 AND database = 'postgres'";
        let row = watcher.query_opt(query, &[&role]).expect("it can be read");
        row.map(|row| (0..4).map(|at| row.get(at)).collect()).unwrap_or_default()
    };
    assert_eq!(calls(&mut watcher, "app"), [1, 0, 0, 0], "the session has the data key that it made");
    assert!(calls(&mut watcher, "report").is_empty(), "the broker had it");
    watcher.run("SELECT env_cache_flush(true)");
    report.decrypt(&value);
    assert_eq!(calls(&mut watcher, "report"), [0, 1, 0, 0]);
    fixture.cluster.sql("ALTER ROLE app SET envelope_pg.broker = off");
    let mut alone = fixture.cluster.connect("app", "postgres");
    alone.encrypt("a text", &fixture.key_id);
    let key = fixture.new_key().arn;
    fixture.proxy.set(Rule::every(Fault::kms_error(400, "AccessDeniedException")).for_key(&key));
    alone.fail_to_encrypt(&key).with("42501");
    assert_eq!(calls(&mut watcher, "app"), [3, 0, 1, 1], "without the broker, too");

    for number in 0..70 {
        let role = format!("crowd{number}");
        fixture.connect_as(&role, &["envelope_encrypt"]).encrypt("a text", &fixture.key_id);
    }
    watcher.run("SELECT env_cache_flush(true)");
    let sum = "SELECT sum(generate_data_key + decrypt + re_encrypt)::bigint FROM env_stat_role";
    let all = (fixture.proxy.calls("GenerateDataKey") + fixture.proxy.calls("Decrypt")) as i64;
    assert_eq!(watcher.one::<i64>(sum, &[]), all, "each call that came to KMS is somebody's");
}

/// docs/guide/capacity.md, "The model": however many sessions there are.
#[test]
fn calls_at_rest_are_those_of_the_cost_model() {
    const TTL: f64 = 6.0;
    const DATA_KEYS: usize = 3;
    let fixture = Fixture::with_broker_and(Cluster::builder().setting("envelope_pg.cache_ttl", "6s"));
    let mut client = fixture.connect();
    let seal = |n: usize| format!("SELECT env_encrypt('a text', $1, '{{\"n\": \"{n}\"}}')");
    let values: Vec<Vec<u8>> = (0..DATA_KEYS).map(|n| client.one(&seal(n), &[&fixture.key_id])).collect();
    client.run("SELECT env_stat_reset()");
    let started = std::time::Instant::now();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = fixture.connect();
                keep_doing(Duration::from_secs(26), Duration::from_millis(40), || {
                    values.iter().for_each(|value| assert_eq!(client.decrypt(value), "a text"));
                });
            });
        }
    });
    let periods = started.elapsed().as_secs_f64() / TTL;
    let counted = broker_count(&mut client, "calls", "Decrypt");
    // The first period began before the counts did, and a busy machine asks late.
    let (least, most) = ((periods / 0.92).floor() - 2.0, (periods / 0.85).ceil());
    println!("{counted} Decrypts of {DATA_KEYS} data keys in {periods:.1} times cache_ttl: {least} to {most} for each");
    let range = (least * DATA_KEYS as f64) as i64..=(most * DATA_KEYS as f64) as i64;
    assert!(range.contains(&counted), "{counted}, not in {range:?}");
    assert_eq!(counted, fixture.proxy.calls("Decrypt") as i64);
    assert_eq!(broker_count(&mut client, "calls", "GenerateDataKey"), 0);
}
