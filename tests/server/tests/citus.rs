//! Distributed tables, on a coordinator and two workers of Citus: where the PostgreSQL of `PG_CONFIG` has it. Elsewhere a line says
//! that these tests were skipped; tests/regress/sql/citus.sql has what can be seen without it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use server_tests::citus::nodes;
use testkit::install::Installation;
use testkit::{Client, Emulator, Session, wait_until};

/// Rows that are not under a key, and rows that do not open to what stands beside them.
fn missed_and_lost(client: &mut Client, name: &str, key_id: &str) -> (i64, i64) {
    (
        client.one(&format!("SELECT count(*) FROM {name} WHERE env_key_id(value) <> $1"), &[&key_id]),
        client.one(&format!("SELECT count(*) FROM {name} WHERE env_decrypt(value) IS DISTINCT FROM note"), &[]),
    )
}

fn last_run(client: &mut Client, column: &str) -> String {
    client.one(&format!("SELECT {column}::text FROM env_rotation ORDER BY run_id DESC LIMIT 1"), &[])
}

#[test]
fn nothing_is_missed_or_lost_while_shards_move_and_others_write() {
    let Some(nodes) = nodes() else { return };
    nodes.table("busy", 30_000, 1_000);
    let new = Emulator::shared().create_key();
    let data_keys: i64 = nodes.connect().one("SELECT count(DISTINCT env_dek_id(value)) FROM busy", &[]);
    let is_over = AtomicBool::new(false);
    let (written, moved) = thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let (mut client, is_over, key_id) = (nodes.connect(), &is_over, &new.arn);
                scope.spawn(move || {
                    let mut written = 0_i64;
                    while !is_over.load(Ordering::Relaxed) {
                        let id = (written * 7919 + writer * 15_000) % 30_000 + 1;
                        client.run(&if written % 2 == 0 {
                            format!(
                                "INSERT INTO busy VALUES ({id}, 'w {written}', 1, env_encrypt('w {written}', '{key_id}'))
                                 ON CONFLICT (id) DO UPDATE SET n = busy.n + 1, note = excluded.note, value = excluded.value"
                            )
                        } else {
                            format!("UPDATE busy SET n = n + 1 WHERE id = {id}")
                        });
                        written += 1;
                    }
                    written
                })
            })
            .collect();
        let mover = {
            let (mut client, is_over) = (nodes.connect(), &is_over);
            scope.spawn(move || {
                let shards: Vec<i64> =
                    client.column("SELECT shardid FROM pg_dist_shard WHERE logicalrelid = 'busy'::regclass");
                let mut moved = 0;
                for shard in shards {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    client.run(&format!(
                        "SELECT citus_move_shard_placement({shard}, f.nodename, f.nodeport, t.nodename, t.nodeport, 'block_writes')
                         FROM pg_dist_placement AS p JOIN pg_dist_node AS f USING (groupid), pg_dist_node AS t
                         WHERE p.shardid = {shard} AND t.groupid NOT IN (0, f.groupid)"
                    ));
                    moved += 1;
                }
                moved
            })
        };
        let call = format!("CALL env_rotate('busy', 'value', '{}', batch_blocks => 5, max_passes => 50)", new.arn);
        nodes.rotator("busy").run(&call);
        is_over.store(true, Ordering::Relaxed);
        let written: i64 = writers.into_iter().map(|writer| writer.join().expect("a writer")).sum();
        (written, mover.join().expect("the mover"))
    });
    println!("{written} writes and {moved} moves meanwhile");
    let mut client = nodes.connect();
    assert_eq!(last_run(&mut client, "state"), "done");
    let rewrapped = nodes.calls("ReEncrypt");
    assert!(rewrapped[0] <= usize::try_from(data_keys).expect("a count"), "each data key once at most: {rewrapped:?}");
    assert_eq!(rewrapped[1..], [0, 0], "workers ask for no wrapped key");
    assert_eq!(missed_and_lost(&mut client, "busy", &new.arn), (0, 0));
    assert_eq!(client.one::<i64>("SELECT sum(n) FROM busy", &[]), written, "each acknowledged write is there");
    assert!(written > 0 && moved > 0);
}

#[test]
fn a_run_that_was_killed_resumes_and_asks_for_nothing_again() {
    let Some(nodes) = nodes() else { return };
    nodes.table("killed", 6_000, 100);
    let new = Emulator::shared().create_key();
    Emulator::shared().create_alias("alias/killed", &new);
    let call = "CALL env_rotate('killed', 'value', 'alias/killed', batch_blocks => 2)".to_owned();
    let data_keys: i64 = nodes.connect().one("SELECT count(DISTINCT env_dek_id(value)) FROM killed", &[]);
    let data_keys = usize::try_from(data_keys).expect("a count");
    let mut victim = nodes.connect();
    let backend = victim.backend();
    let running = thread::spawn({
        let call = call.clone();
        move || victim.batch_execute(&call)
    });
    let mut client = nodes.connect();
    wait_until("some rows are done", || {
        client.one("SELECT EXISTS (SELECT FROM env_rotation WHERE relation ~ 'killed' AND rows_done > 200)", &[])
    });
    client.run(&format!("SELECT pg_terminate_backend({backend})"));
    running.join().expect("no panic").expect_err("it was killed");
    assert_eq!(last_run(&mut client, "state"), "interrupted");
    client.run(&call);
    assert_eq!(last_run(&mut client, "state"), "done");
    assert_eq!(
        nodes.calls("ReEncrypt"),
        [data_keys + 1, 0, 0],
        "each data key once in both CALLs, and what the alias stands for"
    );
    assert_eq!(missed_and_lost(&mut client, "killed", &new.arn), (0, 0));
}

#[test]
fn values_are_sealed_again_and_columns_adopted_on_the_workers() {
    let Some(nodes) = nodes() else { return };
    let mut client = nodes.connect();
    let (old, new) = (&nodes.key_id, Emulator::shared().create_key().arn);
    client.run(&format!(
        "CREATE TABLE adopted (id int PRIMARY KEY, name text, born timestamptz, name_v bytea, born_v bytea);
         SELECT create_distributed_table('adopted', 'id');
         INSERT INTO adopted SELECT i, 'name ' || i, timestamptz '2001-02-03 04:05:06.7+00' + i * interval '1 day' FROM generate_series(1, 500) AS i;
         CREATE TABLE country (code text PRIMARY KEY, value bytea);
         SELECT create_reference_table('country');
         INSERT INTO country SELECT 'c' || i, env_encrypt('text ' || i, '{old}') FROM generate_series(1, 100) AS i"
    ));
    let aad = "aad_expression => $$'adopted:' || id::text$$";
    let refused = client.fail(
        &format!(
            "CALL env_encrypt_column('adopted', 'name', 'name_v', '{old}', aad_expression => $$now() || id::text$$)"
        ),
        &[],
    );
    assert_eq!(refused.sqlstate, "0A000", "what Citus would not push down");
    client.run(&format!("CALL env_encrypt_column('adopted', 'name', 'name_v', '{old}', {aad}, clear_source => true)"));
    client.run(&format!("CALL env_encrypt_column('adopted', 'born', 'born_v', '{old}')"));
    let adopted =
        "SELECT count(*) FROM adopted WHERE name IS NULL AND env_decrypt(name_v, 'adopted:' || id) = 'name ' || id
         AND env_opens_to(born_v, env_to_jsonb(born))";
    assert_eq!(client.one::<i64>(adopted, &[]), 500);
    let before: Vec<Vec<u8>> = client.column("SELECT DISTINCT env_dek_id(name_v) FROM adopted");
    client.run(&format!("CALL env_rotate('adopted', 'name_v', '{old}', 'reencrypt', {aad})"));
    let after: Vec<Vec<u8>> = client.column("SELECT DISTINCT env_dek_id(name_v) FROM adopted");
    assert!(after.iter().all(|dek_id| !before.contains(dek_id)), "no data key that was in use before");
    assert_eq!(client.one::<i64>(adopted, &[]), 500);
    client.run("UPDATE adopted SET born = NULL");
    client.run("CALL env_decrypt_column('adopted', 'born_v', 'born', clear_source => true)");
    let intact = "SELECT count(*) FROM adopted WHERE born = timestamptz '2001-02-03 04:05:06.7+00' + id * interval '1 day' AND born_v IS NULL";
    assert_eq!(client.one::<i64>(intact, &[]), 500);

    // All placements of a reference table are alike, whatever is random.
    client.run(&format!("CALL env_rotate('country', 'value', '{new}')"));
    client.run(&format!("CALL env_rotate('country', 'value', '{new}', 'reencrypt')"));
    let alike = "SELECT count(DISTINCT result) FROM run_command_on_placements('country', $$SELECT md5(string_agg(code || value::text, ',' ORDER BY code)) FROM %s$$)";
    assert_eq!(client.one::<i64>(alike, &[]), 1);
    let intact =
        "SELECT count(*) FROM country WHERE env_decrypt(value) = 'text ' || substr(code, 2) AND env_key_id(value) = $1";
    assert_eq!(client.one::<i64>(intact, &[&new]), 100);
}

#[test]
fn the_coordinator_knows_the_keys_of_all_nodes() {
    let Some(nodes) = nodes() else { return };
    let key_id = Emulator::shared().create_key().arn;
    let mut client = nodes.connect();
    client.run(&format!(
        "SET citus.enable_schema_based_sharding = on;
         CREATE SCHEMA tenant; CREATE TABLE tenant.t (id int PRIMARY KEY, value bytea);
         CREATE TABLE spread (id int, value bytea); SELECT create_distributed_table('spread', 'id');
         CREATE TABLE everywhere (id int, value bytea); SELECT create_reference_table('everywhere');
         CREATE TABLE here (id int, value bytea);
         INSERT INTO tenant.t SELECT i, env_encrypt('x', '{key_id}') FROM generate_series(1, 11) AS i;
         INSERT INTO spread SELECT i, env_encrypt('x', '{key_id}') FROM generate_series(1, 120) AS i;
         INSERT INTO everywhere SELECT i, env_encrypt('x', '{key_id}') FROM generate_series(1, 13) AS i;
         INSERT INTO here SELECT i, env_encrypt('x', '{key_id}') FROM generate_series(1, 14) AS i"
    ));
    let columnar = Installation::current().has("citus_columnar");
    if columnar {
        client.run(&format!(
            "CREATE EXTENSION citus_columnar;
             CREATE TABLE history (id int, value bytea) USING columnar; SELECT create_distributed_table('history', 'id');
             INSERT INTO history SELECT i, env_encrypt('x', '{key_id}') FROM generate_series(1, 15) AS i"
        ));
        let refused = client.fail(&format!("CALL env_rotate('history', 'value', '{key_id}')"), &[]);
        assert_eq!(refused.sqlstate, "0A000");
    }
    nodes
        .connect_to(2)
        .run(&format!("CREATE TABLE own AS SELECT env_encrypt('x', '{key_id}') AS value FROM generate_series(1, 16)"));
    let usage = format!(
        "SELECT concat_ws(' ', relation, rows, split_part(detail, ' ', 3)) FROM env_key_usage('{key_id}') ORDER BY 1"
    );
    let mut found: Vec<String> = client.column(&usage);
    found.retain(|line| !line.contains("of"));
    let mut wanted = vec!["16 own", "everywhere 13", "here 14", "spread 120", "tenant.t 11"];
    if columnar {
        wanted.insert(3, "history 15");
    }
    assert!(wanted.iter().all(|line| found.contains(&(*line).to_owned())), "{found:?}");
    // The bytes of the shards, and the blocks of no shell.
    assert!(
        client.one::<i64>("SELECT bytes_rewritten FROM env_rotation_plan('spread', 'value', $1)", &[&nodes.key_id])
            > 8_192
    );
    for table in ["tenant.t", "here"] {
        client.run(&format!("CALL env_rotate('{table}', 'value', '{}')", nodes.key_id));
    }
    let left: i64 =
        client.one("SELECT count(*) FROM env_key_usage($1) WHERE relation::text IN ('tenant.t', 'here')", &[&key_id]);
    assert_eq!(left, 0);

    // On a worker: what it has of its own, and who knows the rest; and no run, of a shard neither.
    let shard: String = client.one(
        "SELECT shard_name(logicalrelid, shardid) FROM pg_dist_shard JOIN pg_dist_placement USING (shardid)
         JOIN pg_dist_node USING (groupid) WHERE logicalrelid = 'spread'::regclass AND nodeport = $1::int LIMIT 1",
        &[&i32::from(nodes.nodes[1].0.port())],
    );
    let mut worker = nodes.connect_to(1);
    let refused = worker.fail(&format!("CALL env_rotate('{shard}', 'value', '{key_id}')"), &[]);
    assert_eq!(refused.sqlstate, "0A000");
    let refused = worker.fail(&format!("CALL env_rotate('spread', 'value', '{key_id}')"), &[]);
    assert_eq!(refused.sqlstate, "0A000");
    assert_eq!(worker.one::<String>("SELECT state FROM env_key_usage($1) LIMIT 1", &[&key_id]), "incomplete");
}

#[test]
fn replicated_shards_stay_alike_and_partitions_are_rotated() {
    let Some(nodes) = nodes() else { return };
    let mut client = nodes.connect();
    let (old, new) = (&nodes.key_id, Emulator::shared().create_key().arn);
    client.run(&format!(
        "SET citus.shard_replication_factor = 2;
         CREATE TABLE twice (id int, sub text, value bytea, PRIMARY KEY (id, sub)); SELECT create_distributed_table('twice', 'id');
         RESET citus.shard_replication_factor;
         CREATE TABLE parted (id int, day date, value bytea) PARTITION BY RANGE (day); SELECT create_distributed_table('parted', 'id');
         CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM ('2024-01-01') TO ('2024-03-01');
         CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM ('2024-03-01') TO ('2026-01-01');
         INSERT INTO twice SELECT i, 's' || i, env_encrypt('text ' || i, '{old}') FROM generate_series(1, 200) AS i;
         INSERT INTO parted SELECT i, date '2024-01-01' + i, env_encrypt('text ' || i, '{old}') FROM generate_series(1, 200) AS i"
    ));
    client.run(&format!("CALL env_rotate('twice', 'value', '{new}')"));
    client.run(&format!("CALL env_rotate('twice', 'value', '{new}', 'reencrypt')"));
    client.run(&format!("CALL env_rotate('parted', 'value', '{new}')"));
    let different = "SELECT count(*) FROM (SELECT FROM run_command_on_placements('twice', $$SELECT md5(string_agg(id || sub || value::text, ',' ORDER BY id)) FROM %s$$)
         GROUP BY shardid HAVING count(*) <> 2 OR count(DISTINCT result) <> 1) AS s";
    assert_eq!(client.one::<i64>(different, &[]), 0);
    for table in ["twice", "parted"] {
        let intact =
            format!("SELECT count(*) FROM {table} WHERE env_decrypt(value) = 'text ' || id AND env_key_id(value) = $1");
        assert_eq!(client.one::<i64>(&intact, &[&new]), 200, "{table}");
    }
}
