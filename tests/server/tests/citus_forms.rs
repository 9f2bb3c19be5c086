//! What applications write on Citus, form by form as docs/guide/citus.md lists them, and what acts on all nodes. Where there is no
//! Citus a line says that these tests were skipped.

use std::time::{Duration, Instant};

use server_tests::citus::nodes;
use testkit::{Session, wait_until};

/// What is written, and the SQLSTATE that it gets; `KEY` stands for a key.
const FORMS: &[(&str, &str)] = &[
    ("INSERT INTO f VALUES (1, 'a', env_encrypt('a', 'KEY')), (2, 'b', env_encrypt('b', 'KEY'))", ""),
    ("INSERT INTO f SELECT i, 'n' || i, env_encrypt('n' || i, 'KEY') FROM generate_series(3, 50) AS i", ""),
    (
        "INSERT INTO f VALUES (1, 'c', env_encrypt('c', 'KEY')) ON CONFLICT (id) DO UPDATE SET name = excluded.name, v = excluded.v",
        "",
    ),
    ("INSERT INTO f VALUES (1, 'c', NULL) ON CONFLICT (id) DO UPDATE SET v = env_encrypt('c', 'KEY')", "0A000"),
    ("INSERT INTO f2 SELECT id, name, env_encrypt(name, 'KEY') FROM f", ""),
    ("UPDATE f SET v = env_encrypt('c', 'KEY') WHERE id = 1", "0A000"),
    ("UPDATE f SET v = env_encrypt(name, 'KEY')", "0A000"),
    ("UPDATE f SET v = (SELECT env_encrypt(f.name, 'KEY')) WHERE id = 1", "0A000"),
    ("UPDATE f SET v = (SELECT env_encrypt('c', 'KEY')) WHERE id = 1", ""),
    (
        "WITH s AS MATERIALIZED (SELECT id, name, v, env_encrypt(name, 'KEY') AS new FROM f)
         UPDATE f SET v = s.new FROM s WHERE f.id = s.id AND f.name = s.name AND f.v = s.v",
        "",
    ),
    ("ALTER TABLE f ADD CHECK (public.env_is_envelope(v))", ""),
    ("INSERT INTO f VALUES (99, 'd', 'plain')", "23514"),
    (
        "CREATE TRIGGER t BEFORE INSERT ON f FOR EACH ROW EXECUTE FUNCTION
         env_encrypt_trigger('{\"source\": \"name\", \"target\": \"v\", \"key_id\": \"KEY\"}')",
        "XX000",
    ),
    ("INSERT INTO g (id, name) VALUES (1, 'a'), (2, 'b')", ""),
    ("UPDATE g SET name = name || '!'", ""),
    (
        "INSERT INTO t SELECT env_blind_index('n' || i, 'people'), env_encrypt('n' || i, 'KEY') FROM generate_series(1, 20) AS i",
        "",
    ),
    ("INSERT INTO t2 SELECT token FROM t", ""),
    ("SELECT v FROM t WHERE token = env_blind_index('n7', 'people')", "42704"),
];

/// A query, and what it gives.
const SELECTS: &[(&str, i64)] = &[
    ("SELECT count(*) FROM f WHERE env_decrypt(v) = name", 50),
    ("SELECT count(DISTINCT v) FROM f", 50),
    ("SELECT count(*) FROM f2 JOIN f USING (id) WHERE env_decrypt(f2.v) = f.name", 50),
    ("SELECT count(*) FROM g WHERE env_decrypt(v) = name", 2),
    ("SELECT count(*) FROM t WHERE token = (SELECT env_blind_index('n7', 'people')) AND env_decrypt(v) = 'n7'", 1),
    ("SELECT count(*) FROM t JOIN t2 USING (token)", 20),
    ("WITH k AS MATERIALIZED (SELECT 'n7'::text AS x) SELECT count(*) FROM f, k WHERE env_decrypt(v) = x", 1),
];

#[test]
fn each_form_does_what_the_guide_says() {
    let Some(nodes) = nodes() else { return };
    let mut client = nodes.connect();
    let key_id = &nodes.key_id;
    client.run(&format!(
        "CREATE TABLE f (id bigint PRIMARY KEY, name text, v bytea); SELECT create_distributed_table('f', 'id');
         CREATE TABLE f2 (id bigint PRIMARY KEY, name text, v bytea); SELECT create_distributed_table('f2', 'id', colocate_with => 'f');
         CREATE TABLE g (id int PRIMARY KEY, name text, v bytea GENERATED ALWAYS AS (env_encrypt_generated(name, '{key_id}')) STORED);
         SELECT create_distributed_table('g', 'id');
         SELECT env_create_index_key('people', '{key_id}');
         CREATE TABLE t (token bytea PRIMARY KEY, v bytea); SELECT create_distributed_table('t', 'token');
         CREATE TABLE t2 (token bytea); SELECT create_distributed_table('t2', 'token', colocate_with => 't')"
    ));
    for (form, wanted) in FORMS {
        let form = form.replace("KEY", key_id);
        match client.batch_execute(&form) {
            Ok(()) => assert_eq!(*wanted, "", "{form}"),
            Err(error) => assert_eq!(error.code().map_or("", |code| code.code()), *wanted, "{form}: {error:?}"),
        }
    }
    for (query, wanted) in SELECTS {
        assert_eq!(client.one::<i64>(query, &[]), *wanted, "{query}");
    }
    // The wrong one: all rows get one ciphertext.
    client.run(&format!("UPDATE f2 SET v = (SELECT env_encrypt('x', '{key_id}'))"));
    assert_eq!(client.one::<i64>("SELECT count(DISTINCT v) FROM f2", &[]), 1);
}

#[test]
fn plaintext_is_in_the_statements_of_workers_where_the_guide_says_so() {
    let Some(nodes) = nodes() else { return };
    let mut client = nodes.connect();
    let key_id = &nodes.key_id;
    client.run("CREATE TABLE logged (id int PRIMARY KEY, v bytea); SELECT create_distributed_table('logged', 'id')");
    for (cluster, _) in &nodes.nodes[1..] {
        cluster.set("log_statement", "all");
    }
    client.run(&format!(
        "PREPARE p (text) AS INSERT INTO logged VALUES (1, env_encrypt($1, '{key_id}')); EXECUTE p('secret-parameter');
         INSERT INTO logged VALUES (2, env_encrypt('secret-insert', '{key_id}'));
         INSERT INTO logged VALUES (2, env_encrypt('secret-upsert', '{key_id}')) ON CONFLICT (id) DO UPDATE SET v = excluded.v;
         UPDATE logged SET v = (SELECT env_encrypt('secret-update', '{key_id}')) WHERE id = 2;
         WITH k AS MATERIALIZED (SELECT 'secret-cte'::text AS x) SELECT count(*) FROM logged, k WHERE env_decrypt(v) = x;
         SELECT count(*) FROM logged WHERE env_decrypt(v) = 'secret-where'"
    ));
    let logs: String = nodes.nodes[1..].iter().map(|(cluster, _)| cluster.log()).collect();
    for (cluster, _) in &nodes.nodes[1..] {
        cluster.reset("log_statement");
    }
    let seen = |text: &str| logs.contains(text);
    for text in ["secret-parameter", "secret-insert", "secret-upsert", "secret-update", "secret-cte"] {
        assert!(!seen(text), "{text}: the coordinator evaluates it");
    }
    assert!(seen("secret-where"), "a comparison with a constant is sent as it is: the guide has another form");
}

#[test]
fn one_statement_acts_on_all_nodes_and_names_them() {
    let Some(nodes) = nodes() else { return };
    nodes.table("spread_out", 60, 10);
    let mut client = nodes.connect();
    let on_all = |command: &str| {
        format!(
            "SELECT concat(n.nodename, ':', n.nodeport, ' ', a.success, ' ', a.result)
             FROM run_command_on_all_nodes($${command}$$) AS a JOIN pg_dist_node AS n USING (nodeid) ORDER BY n.nodeid"
        )
    };
    let named = |answers: &[String]| {
        assert_eq!(answers.len(), 3);
        for (answer, (cluster, _)) in answers.iter().zip(&nodes.nodes) {
            assert!(answer.starts_with(&format!("127.0.0.1:{} t", cluster.port())), "{answers:?}");
        }
    };
    named(&client.column::<String>(&on_all("SELECT env_stat_reset()")));
    // Workers have data keys in their brokers, and a flush on all nodes takes them: each is asked for anew.
    let decrypt = "SELECT count(*) FROM spread_out WHERE env_decrypt(value) = note";
    let seals = format!("SELECT env_encrypt(note, '{}') FROM spread_out", nodes.key_id);
    assert_eq!(client.one::<i64>(decrypt, &[]), 60);
    let asked = nodes.calls("Decrypt");
    assert!(asked[1] > 0 && asked[2] > 0, "{asked:?}");
    assert_eq!(client.one::<i64>(decrypt, &[]), 60);
    assert_eq!(nodes.calls("Decrypt"), asked, "nothing is asked twice");
    client.run("SELECT env_cache_flush(true)");
    assert_eq!(client.one::<i64>(decrypt, &[]), 60);
    assert_eq!(nodes.calls("Decrypt"), asked, "a flush here is no flush there");
    named(&client.column::<String>(&on_all("SELECT env_cache_flush(true)")));
    assert_eq!(client.one::<i64>(decrypt, &[]), 60);
    let again = nodes.calls("Decrypt");
    assert!(again[1] >= 2 * asked[1] && again[2] >= 2 * asked[2], "{asked:?} {again:?}");

    // New current data keys.
    client.column::<Vec<u8>>(&seals);
    let made = nodes.calls("GenerateDataKey");
    named(&client.column::<String>(&on_all(&format!("SELECT env_rotate_dek('{}')", nodes.key_id))));
    client.column::<Vec<u8>>(&seals);
    let again = nodes.calls("GenerateDataKey");
    assert!(again[1] > made[1] && again[2] > made[2], "{made:?} {again:?}");

    // Statistics, by node.
    named(&client.column::<String>(&on_all("SELECT coalesce(json_agg(s), '[]') FROM env_stat_kms AS s")));
    let counted: i64 = client.one(
        "SELECT sum(s.calls)::bigint FROM run_command_on_all_nodes($$SELECT coalesce(json_agg(s), '[]') FROM env_stat_kms AS s WHERE source = 'broker'$$) AS a,
         json_to_recordset(a.result::json) AS s (operation text, calls bigint) WHERE operation = 'Decrypt'",
        &[],
    );
    assert_eq!(usize::try_from(counted).expect("a count"), nodes.calls("Decrypt").iter().sum::<usize>());

    // A limit of calls on each, and what env_check says of the nodes.
    let limited = on_all("ALTER SYSTEM SET envelope_pg.kms_max_calls_per_second = 300");
    named(&client.column::<String>(&limited));
    named(&client.column::<String>(&on_all("SELECT pg_reload_conf()")));
    let (worker, _) = &nodes.nodes[1];
    worker.set("envelope_pg.cache_ttl", "7s");
    let differs = "SELECT object || ' ' || split_part(mend, ' -- on ', 2) FROM env_check(rows => 0)
        WHERE finding = 'node_differs' AND object LIKE '%.cache_ttl'";
    let mut found: Vec<String> = Vec::new();
    wait_until("the worker differs", || {
        found = nodes.connect().column(differs);
        !found.is_empty()
    });
    assert_eq!(found, [format!("127.0.0.1:{0}: envelope_pg.cache_ttl 127.0.0.1:{0}", worker.port())]);
    let limits = "SELECT count(*) FROM run_command_on_all_nodes('SHOW envelope_pg.kms_max_calls_per_second') WHERE result = '300'";
    wait_until("the limit is everywhere", || nodes.connect().one::<i64>(limits, &[]) == 3);
    let job_cache =
        "SELECT detail LIKE '%spread_out%' FROM env_check(rows => 0) WHERE finding = 'intermediate_results'";
    assert!(client.one::<bool>(job_cache, &[]));

    // Warm, on the nodes that hold the rows.
    named(&client.column::<String>(&on_all("SELECT env_cache_flush(true)")));
    client.run("SELECT run_command_on_shards('spread_out', $$SELECT public.env_warm(value) FROM %s$$)");
    let warm = nodes.calls("Decrypt");
    assert_eq!(client.one::<i64>(decrypt, &[]), 60);
    assert_eq!(nodes.calls("Decrypt"), warm);

    // A limit of calls is that of each session on each node.
    client.run("ALTER DATABASE postgres SET envelope_pg.max_kms_calls_per_statement = 1");
    named(&client.column::<String>(&on_all("SELECT env_cache_flush(true)")));
    let refused = nodes.connect().fail(decrypt, &[]);
    client.run("ALTER DATABASE postgres RESET envelope_pg.max_kms_calls_per_statement");
    assert_eq!(refused.sqlstate, "54000");
}

#[test]
fn the_model_of_the_capacity_page_holds() {
    const CACHE_TTL: f64 = 3.0;
    let Some(nodes) = nodes() else { return };
    nodes.table("read", 200, 20);
    let mut client = nodes.connect();
    let data_keys: i64 = client.one("SELECT count(DISTINCT env_dek_id(value)) FROM read", &[]);
    for (cluster, _) in &nodes.nodes {
        cluster.set("envelope_pg.cache_ttl", "3s");
        cluster.connect("postgres", "postgres").run("SELECT env_cache_flush(true), env_stat_reset()");
    }
    let mut readers: Vec<_> = (0..2).map(|_| nodes.connect()).collect();
    nodes.nodes.iter().for_each(|(_, proxy)| proxy.reset_counts());
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(15) {
        for reader in &mut readers {
            reader.run("SELECT count(*) FROM read WHERE env_decrypt(value) = note");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let seconds = started.elapsed().as_secs_f64();
    let asked = nodes.calls("Decrypt");
    let mut counted = Vec::new();
    for (cluster, _) in &nodes.nodes {
        cluster.reset("envelope_pg.cache_ttl");
        let calls = "SELECT coalesce(sum(calls), 0)::bigint FROM env_stat_kms WHERE operation = 'Decrypt' AND source = 'broker'";
        counted.push(cluster.connect("postgres", "postgres").one::<i64>(calls, &[]));
    }
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    let (cold, asked_of): (f64, Vec<f64>) = (data_keys as f64, asked.iter().map(|calls| *calls as f64).collect());
    let model = cold * (1.0 + seconds / (0.85 * CACHE_TTL));
    println!(
        "{data_keys} data keys, {seconds:.1} s: {asked:?} Decrypts, env_stat_kms {counted:?}, model {model:.0} a worker"
    );
    assert_eq!(asked[0], 0, "the coordinator opens nothing");
    for worker in 1..3 {
        let share = asked_of[worker] / model;
        assert!((0.5..=2.0).contains(&share), "{asked:?} where the model says {model}");
        assert_eq!(usize::try_from(counted[worker]).expect("a count"), asked[worker], "env_stat_kms agrees");
    }
}
