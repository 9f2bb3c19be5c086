//! The current data key of all sessions: how long and how much it serves, and what replaces it.

use std::collections::{BTreeMap, HashSet};
use std::thread;
use std::time::{Duration, Instant};

use testkit::{Client, Cluster, Emulator, Fault, Fixture, Rule, Session, keep_doing, wait_until};

/// The id of the data key that seals a session's next value.
fn dek_id(client: &mut Client, key_id: &str) -> Vec<u8> {
    client.one("SELECT env_dek_id(env_encrypt('a text'::text, $1))", &[&key_id])
}

/// As [`dek_id`], in an encryption context.
fn dek_id_in(client: &mut Client, key_id: &str, context: &str) -> Vec<u8> {
    let query = "SELECT env_dek_id(env_encrypt('a text'::text, $1, jsonb_build_object('context', $2::text)))";
    client.one(query, &[&key_id, &context])
}

/// The KMS key that seals a session's next value.
fn kms_key(client: &mut Client, key_id: &str) -> String {
    client.one("SELECT env_key_id(env_encrypt('a text'::text, $1))", &[&key_id])
}

#[test]
fn its_age_is_the_same_for_all_sessions() {
    let fixture = Fixture::with_broker_and(Cluster::builder().setting("envelope_pg.dek_max_age", "2s"));
    let (mut one, mut other) = (fixture.connect(), fixture.connect());
    let first = dek_id(&mut one, &fixture.key_id);
    one.see_aged(1.2);
    assert_eq!(dek_id(&mut other, &fixture.key_id), first);
    one.see_aged(2.2);
    // Its two seconds are over, also for the session that has it for one second only.
    let second = dek_id(&mut other, &fixture.key_id);
    assert_ne!(second, first);
    assert_eq!(dek_id(&mut one, &fixture.key_id), second);
    assert_eq!(dek_id(&mut fixture.connect(), &fixture.key_id), second);
    assert_eq!(fixture.kms_calls(), (2, 0));
}

#[test]
fn its_uses_are_counted_over_all_sessions() {
    for limit in [1, 3, 100] {
        let fixture =
            Fixture::with_broker_and(Cluster::builder().setting("envelope_pg.dek_max_uses", &limit.to_string()));
        fixture.cluster.sql("CREATE TABLE used (value bytea)");
        const SESSIONS: i64 = 8;
        let rows: i64 = if limit == 100 { 240 } else { 6 };
        thread::scope(|scope| {
            for _ in 0..SESSIONS {
                scope.spawn(|| {
                    let insert = "INSERT INTO used SELECT env_encrypt('a', $1) FROM generate_series(1, $2::bigint)";
                    let mut client = fixture.connect();
                    client.execute(insert, &[&fixture.key_id, &rows]).expect("the rows are written");
                });
            }
        });
        let uses = "SELECT count(*) FROM used GROUP BY env_dek_id(value) ORDER BY 1 DESC";
        let uses: Vec<i64> = fixture.connect().column(uses);
        println!("dek_max_uses = {limit}: {:?}, {} GenerateDataKey", uses, fixture.kms_calls().0);
        assert_eq!(uses.iter().sum::<i64>(), SESSIONS * rows);
        assert!(uses[0] <= limit, "a data key sealed {} values", uses[0]);
        // What sessions did not use of their shares is lost, but it is no more than half.
        let needed = (SESSIONS * rows + limit - 1) / limit;
        assert!(uses.len() as i64 <= 2 * needed, "{} data keys where {needed} would do", uses.len());
        assert!(fixture.kms_calls().0 as i64 <= 2 * needed + 1, "{:?}", fixture.kms_calls());
        assert_eq!(fixture.connect().one::<i64>("SELECT count(env_decrypt(value)) FROM used", &[]), SESSIONS * rows);
    }
}

#[test]
fn its_bytes_are_counted_over_all_sessions() {
    let fixture = Fixture::with_broker_and(Cluster::builder().setting("envelope_pg.dek_max_bytes", "64kB"));
    fixture.cluster.sql("CREATE TABLE used (value bytea)");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let insert = "INSERT INTO used SELECT env_encrypt(repeat('x', 1000), $1) FROM generate_series(1, 100)";
                fixture.connect().execute(insert, &[&fixture.key_id]).expect("the rows are written");
            });
        }
    });
    let mut client = fixture.connect();
    let most: i64 =
        client.one("SELECT max(n) FROM (SELECT count(*) AS n FROM used GROUP BY env_dek_id(value)) AS c", &[]);
    assert!((1..=65).contains(&most), "a data key sealed {most} values of 1000 bytes");
    let large = "SELECT env_encrypt(repeat('x', 100000), $1)";
    let first: Vec<u8> = client.one(large, &[&fixture.key_id]);
    let second: Vec<u8> = fixture.connect().one(large, &[&fixture.key_id]);
    assert!(client.one::<bool>("SELECT env_dek_id($1) <> env_dek_id($2)", &[&first, &second]), "one each");
    client.decrypt(&second);
}

#[test]
fn an_alias_that_is_re_pointed_takes_effect_with_the_next_one() {
    let fixture = Fixture::with_broker_and(Cluster::builder().setting("envelope_pg.dek_max_age", "2s"));
    let (old, new, emulator) = (fixture.new_key(), fixture.new_key(), Emulator::shared());
    let alias = "alias/broker-re-pointed";
    emulator.create_alias(alias, &old);
    let (mut one, mut other) = (fixture.connect(), fixture.connect());
    let value = one.encrypt("a text", alias);
    assert_eq!(kms_key(&mut other, alias), old.arn);
    emulator.update_alias(alias, &new);
    assert_eq!(kms_key(&mut other, alias), old.arn, "the current data key stays");
    assert_eq!(kms_key(&mut fixture.connect(), alias), old.arn, "for new sessions, too");
    one.see_aged(2.2);
    for client in [&mut one, &mut other, &mut fixture.connect()] {
        assert_eq!(kms_key(client, alias), new.arn);
    }
    assert_eq!(fixture.connect().decrypt(&value), "a text");
}

#[test]
fn rotated_with_the_broker() {
    let fixture = Fixture::with_broker();
    let (mut one, mut other) = (fixture.connect(), fixture.connect());
    let key = &fixture.key_id;
    let value = one.encrypt("a text", key);
    let deks = |client: &mut Client| [dek_id(client, key), dek_id_in(client, key, "a"), dek_id_in(client, key, "b")];
    let before = deks(&mut one);
    assert_eq!(deks(&mut other), before);

    // One encryption context.
    let rotated: Vec<u8> = other.one("SELECT env_rotate_dek($1, '{\"context\": \"a\"}')", &[&key]);
    let expected = [before[0].clone(), rotated, before[2].clone()];
    for client in [&mut one, &mut other, &mut fixture.connect()] {
        assert_eq!(deks(client), expected, "only the one of this encryption context is new");
    }
    assert_eq!(fixture.kms_calls(), (4, 0));

    // All of them.
    assert_eq!(other.one::<Option<Vec<u8>>>("SELECT env_rotate_dek($1)", &[&key]), None);
    assert_eq!(fixture.kms_calls(), (4, 0), "none is made without its encryption context");
    let after = deks(&mut one);
    assert!(after.iter().all(|dek| !expected.contains(dek)), "all are new");
    for client in [&mut other, &mut fixture.connect()] {
        assert_eq!(deks(client), after);
    }
    assert_eq!(fixture.kms_calls(), (7, 0));
    assert_eq!(one.decrypt(&value), "a text");
    assert_eq!(other.decrypt(&value), "a text");
}

#[test]
fn rotated_under_another_name_of_the_key() {
    let fixture = Fixture::with_broker();
    let (key, emulator) = (fixture.new_key(), Emulator::shared());
    emulator.create_alias("alias/broker-other-name", &key);
    let mut client = fixture.connect();
    let before = dek_id(&mut client, "alias/broker-other-name");
    client.run(&format!("SELECT env_rotate_dek('{}')", key.arn));
    assert_ne!(dek_id(&mut client, "alias/broker-other-name"), before, "it is the same key");
}

#[test]
fn rotated_without_the_broker() {
    let fixture = Fixture::kms();
    let (mut one, mut other) = (fixture.connect(), fixture.connect());
    let key = &fixture.key_id;
    let before = [dek_id(&mut one, key), dek_id_in(&mut one, key, "a"), dek_id(&mut other, key)];
    one.run(&format!("SELECT env_rotate_dek('{key}')"));
    let after = [dek_id(&mut one, key), dek_id_in(&mut one, key, "a"), dek_id(&mut other, key)];
    for (before, after) in before.iter().zip(&after) {
        assert_ne!(before, after);
    }
    let before = dek_id_in(&mut other, key, "a");
    one.run(&format!("SELECT env_rotate_dek('{key}', '{{\"context\": \"a\"}}')"));
    assert_ne!(dek_id_in(&mut other, key, "a"), before);
}

#[test]
fn a_rotation_that_fails_leaves_the_one_before() {
    let fixture = Fixture::with_broker();
    let mut client = fixture.connect();
    let before = dek_id(&mut client, &fixture.key_id);
    for (status, code, sqlstate) in [(400, "AccessDeniedException", "42501"), (400, "ThrottlingException", "53400")] {
        fixture.proxy.set(Fault::kms_error(status, code));
        client.fail("SELECT env_rotate_dek($1, '{}')", &[&fixture.key_id]).with(sqlstate);
        fixture.proxy.clear();
        assert_eq!(dek_id(&mut fixture.connect(), &fixture.key_id), before, "after {code}");
    }
}

/// A data key that was being made when another one was made on purpose is older: it must not take its place.
#[test]
fn a_rotation_wins_against_a_slower_call_from_before() {
    let fixture = Fixture::with_broker();
    let key = &fixture.key_id;
    for context in [None, Some("a")] {
        fixture.connect().run("SELECT env_cache_flush(true)");
        fixture.proxy.reset_counts();
        fixture.proxy.set(Rule::every(Fault::Delay(Duration::from_millis(800))).times(1));
        let seal = |client: &mut Client| match context {
            None => dek_id(client, key),
            Some(context) => dek_id_in(client, key, context),
        };
        thread::scope(|scope| {
            let slow = scope.spawn(|| seal(&mut fixture.connect()));
            wait_until("the slower call is under way", || fixture.kms_calls().0 == 1);
            // Without an encryption context it replaces those of all.
            let rotate = if context.is_none() { "env_rotate_dek($1, '{}')" } else { "env_rotate_dek($1)" };
            let rotated: Option<Vec<u8>> = fixture.connect().one(&format!("SELECT {rotate}"), &[&key]);
            slow.join().expect("no thread panics");
            let next = seal(&mut fixture.connect());
            if let Some(rotated) = rotated {
                assert_eq!(next, rotated, "the rotation's data key is the current one");
            }
            // The slow call's came from before the rotation, so another one was made.
            assert_eq!(fixture.kms_calls(), (2, 0));
            assert_eq!(seal(&mut fixture.connect()), next, "and stays");
        });
        fixture.proxy.clear();
    }
}

/// Has a server lose its current data key, and makes sure that a new one is made and the old values open.
fn a_new_one_is_made(what: &str, fixture: &Fixture, lose: impl FnOnce()) {
    let value = fixture.connect().encrypt("a text", &fixture.key_id);
    lose();
    fixture.proxy.reset_counts();
    let mut client = fixture.connect();
    let new = client.encrypt("another text", &fixture.key_id);
    assert_eq!(client.decrypt(&value), "a text");
    assert_eq!(fixture.kms_calls(), (1, 1), "{what}");
    assert!(client.one::<bool>("SELECT env_dek_id($1) <> env_dek_id($2)", &[&value, &new]), "{what}");
    assert_eq!(fixture.connect().decrypt(&new), "another text");
    fixture.connect().encrypt("a text", &fixture.key_id);
    assert_eq!(fixture.kms_calls(), (1, 1), "{what}: it is shared");
}

#[test]
fn after_every_kind_of_end_a_new_one_is_made() {
    let fixture = Fixture::with_broker();
    a_new_one_is_made("the broker ends", &fixture, || fixture.cluster.stop_broker());
    a_new_one_is_made("the server restarts", &fixture, || fixture.cluster.restart());
    a_new_one_is_made("the server crashes", &fixture, || {
        fixture.cluster.sql("CHECKPOINT");
        fixture.cluster.stop_immediate();
        fixture.cluster.start_again();
    });
}

/// Sessions that live on while the broker is replaced keep what they have until its time is up.
#[test]
fn a_session_outlives_a_broker() {
    let fixture = Fixture::with_broker();
    let mut client = fixture.connect();
    let value = client.encrypt("a text", &fixture.key_id);
    fixture.cluster.stop_broker();
    assert_eq!(client.decrypt(&value), "a text");
    client.encrypt("a text", &fixture.key_id);
    assert_eq!(fixture.kms_calls(), (1, 0));
    assert!(fixture.cluster.brokers().is_empty(), "nobody needed one");
}

#[test]
fn where_decrypt_is_denied_encryption_goes_on() {
    let fixture = Fixture::with_broker_and(Cluster::builder().setting("envelope_pg.cache_ttl", "1s"));
    fixture.proxy.set(Rule::every(Fault::kms_error(400, "AccessDeniedException")).only("Decrypt"));
    let mut session = fixture.connect();
    let mut deks = HashSet::new();
    let mut values = Vec::new();
    let started = Instant::now();
    keep_doing(Duration::from_millis(3_500), Duration::from_millis(250), || {
        deks.insert(dek_id(&mut session, &fixture.key_id));
        deks.insert(dek_id(&mut fixture.connect(), &fixture.key_id));
        values.push(session.encrypt("a text", &fixture.key_id));
    });
    let seconds = started.elapsed().as_secs_f64();
    let calls = fixture.kms_calls();
    println!("{seconds:.1} s with a cache_ttl of 1 s where Decrypt is denied: {} data keys, {calls:?}", deks.len());
    // One until its refresh is denied, from 70 % of its time on, and no longer than its time and a round of this loop.
    let bounds = (seconds / 1.3) as usize..=(seconds / 0.7) as usize + 1;
    assert!(bounds.contains(&deks.len()), "{} data keys, and not {bounds:?}", deks.len());
    // Reading a value whose data key nobody has any more is what is denied.
    fixture.connect().run("SELECT env_cache_flush(true)");
    fixture.connect().fail_to_decrypt(&values[0]).with("42501");
    fixture.connect().encrypt("a text", &fixture.key_id);
    fixture.proxy.clear();
    for value in &values {
        assert_eq!(session.decrypt(value), "a text");
    }
}

/// While KMS is away the spent data key serves on, and KMS is not asked for each value.
#[test]
fn in_an_outage_the_spent_one_serves_on() {
    let fixture = Fixture::with_broker_and(
        Cluster::builder()
            .setting("envelope_pg.dek_max_age", "1s")
            .setting("envelope_pg.kms_timeout", "600ms")
            .setting("envelope_pg.kms_max_attempts", "1"),
    );
    let mut session = fixture.connect();
    let first = dek_id(&mut session, &fixture.key_id);
    fixture.proxy.refuse();
    session.see_aged(1.2);
    let mut uses: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    for _ in 0..20 {
        *uses.entry(dek_id(&mut session, &fixture.key_id)).or_default() += 1;
        *uses.entry(dek_id(&mut fixture.connect(), &fixture.key_id)).or_default() += 1;
    }
    assert_eq!(uses, BTreeMap::from([(first.clone(), 40)]));
    fixture.proxy.clear();
    wait_until("a new one is made", || dek_id(&mut fixture.connect(), &fixture.key_id) != first);
    wait_until("the session takes it up", || dek_id(&mut session, &fixture.key_id) != first);
}

#[test]
fn a_rotation_is_counted_among_the_calls_of_its_statement() {
    let fixture = Fixture::with_broker();
    let (mut client, key) = (fixture.connect(), &fixture.key_id);
    client.encrypt("a text", key);
    let calls = |client: &mut Client| client.one::<i64>("SELECT session FROM env_kms_calls()", &[]);
    let before = calls(&mut client);
    client.run(&format!("SELECT env_rotate_dek('{key}', '{{}}')"));
    assert_eq!((calls(&mut client), fixture.kms_calls()), (before + 1, (2, 0)));
    client.run(&format!("SELECT env_rotate_dek('{key}')"));
    assert_eq!(calls(&mut client), before + 1, "it made none");
    client.run("SET envelope_pg.max_kms_calls_per_statement = 1");
    client.run(&format!("SELECT env_rotate_dek('{key}', '{{}}')"));
    let two = "SELECT env_rotate_dek($1, '{}'), env_rotate_dek($1, '{\"a\": \"b\"}')";
    client.fail(two, &[key]).with("54000");
}
