//! Values that somebody has put together who may store them and not encrypt: what reading them costs, and whom. Each call at the
//! KMS endpoint counts to the statement that caused it.

use testkit::{Client, Cluster, Fixture, Session};

const ROWS: usize = 200;

/// Where the wrapped keys of a value are: behind their length, to their end (docs/FORMAT.md, section 3).
fn wrapped_keys(value: &[u8]) -> (usize, usize) {
    let at = 40 + usize::from(u16::from_be_bytes([value[38], value[39]])) + 2;
    (at, at + usize::from(u16::from_be_bytes([value[at - 2], value[at - 1]])))
}

/// The value with another wrapped data key, of the same key.
fn with_other_wrapped_key(value: &[u8], number: usize) -> Vec<u8> {
    let mut forged = value.to_vec();
    let (_, end) = wrapped_keys(value);
    forged[end - 8..end].copy_from_slice(&(number as u64).to_be_bytes());
    forged
}

/// The value with so many other wrapped data keys, of the same key.
fn with_wrapped_keys(value: &[u8], first_number: usize, count: usize) -> Vec<u8> {
    let (from, to) = wrapped_keys(value);
    let numbers = first_number..first_number + count;
    let stanzas: Vec<u8> =
        numbers.flat_map(|number| with_other_wrapped_key(value, number)[from..to].to_vec()).collect();
    let length = u16::try_from(stanzas.len()).expect("it fits").to_be_bytes();
    [&value[..from - 2], &length, &stanzas, &value[to..]].concat()
}

/// The value with another commitment. Its wrapped data key is a good one.
fn with_other_commitment(value: &[u8], number: usize) -> Vec<u8> {
    let mut forged = value.to_vec();
    forged[6..14].copy_from_slice(&(number as u64).to_be_bytes());
    forged
}

fn store(client: &mut Client, values: &[Vec<u8>]) {
    client.run("DROP TABLE IF EXISTS stored; CREATE TABLE stored (id bigserial, v bytea)");
    client.execute("INSERT INTO stored (v) SELECT unnest($1::bytea[])", &[&values]).expect("anybody may store them");
}

/// How many of the stored values open.
fn read(client: &mut Client) -> i64 {
    client.one("SELECT count(env_try_decrypt(v)) FROM (SELECT v FROM stored ORDER BY id) AS s", &[])
}

/// The calls that are counted to the session.
fn counted(client: &mut Client) -> usize {
    client.one::<i64>("SELECT (env_kms_calls()).session", &[]) as usize
}

fn fixtures() -> [Fixture; 2] {
    [Fixture::with_broker(), Fixture::kms()]
}

#[test]
fn a_forged_wrapped_key_costs_one_call_that_is_counted() {
    for fixture in fixtures() {
        let mut writer = fixture.connect();
        let value = writer.encrypt("a text", &fixture.key_id);
        let forged: Vec<_> = (0..ROWS).map(|number| with_other_wrapped_key(&value, number)).collect();
        store(&mut writer, &forged);
        let mut reader = fixture.connect();
        for round in 0..3 {
            fixture.proxy.reset_counts();
            let before = counted(&mut reader);
            assert_eq!(read(&mut reader), 0);
            let calls = fixture.proxy.total_calls();
            println!("round {round}: {calls} calls for {ROWS} forged rows");
            assert_eq!(counted(&mut reader) - before, calls, "each is counted to the session");
            // What is older than the ten seconds that it is remembered for is asked again, as often as there are rows at most.
            assert!(calls <= ROWS, "nobody looks ahead to what failed");
        }
        // Few enough for all to be remembered.
        writer.run("DELETE FROM stored WHERE id > 10");
        fixture.connect().run("SELECT env_cache_flush(true)");
        for (round, calls) in [(0, 10), (1, 0), (2, 0)] {
            fixture.proxy.reset_counts();
            assert_eq!(read(&mut reader), 0);
            assert_eq!(fixture.proxy.total_calls(), calls, "round {round}");
        }
        // Another session asks the broker, which remembers them as well.
        fixture.proxy.reset_counts();
        let mut other = fixture.connect();
        assert_eq!(read(&mut other), 0);
        assert_eq!(fixture.proxy.total_calls(), counted(&mut other));
        let has_broker = !fixture.cluster.brokers().is_empty();
        assert_eq!(fixture.proxy.total_calls(), if has_broker { 0 } else { 10 });
        assert_eq!(other.decrypt(&value), "a text");
    }
}

/// The wrapped key of a good value with another commitment: it opens, and not to what the value says.
#[test]
fn a_forged_commitment_costs_two_calls_and_leaves_the_good_value_alone() {
    for fixture in fixtures() {
        let mut writer = fixture.connect();
        let value = writer.encrypt("a text", &fixture.key_id);
        let mut stored: Vec<_> = (0..ROWS).map(|number| with_other_commitment(&value, number)).collect();
        stored.push(value);
        store(&mut writer, &stored);
        fixture.connect().run("SELECT env_cache_flush(true)");
        let mut reader = fixture.connect();
        fixture.proxy.reset_counts();
        let calls_of_a_forgery = 2;
        assert_eq!(read(&mut reader), 1, "the good one is behind the others");
        let calls = fixture.proxy.total_calls();
        println!("{calls} calls for {ROWS} forged rows and a good one");
        assert!(calls <= calls_of_a_forgery + 1 + 2 * usize::from(calls > 5), "{calls}");
        assert_eq!(counted(&mut reader), calls);
        assert_eq!(reader.decrypt(&stored[ROWS]), "a text");
    }
}

/// As somebody did it: a call for each wrapped key, and not thirteen.
#[test]
fn two_thousand_forged_keys_cost_a_call_each() {
    let fixture = Fixture::with_broker();
    let mut writer = fixture.connect();
    let value = writer.encrypt("a text", &fixture.key_id);
    // A quarter of them in values of eight wrapped keys.
    let mut forged: Vec<_> = (0..1_500).map(|number| with_other_wrapped_key(&value, number)).collect();
    forged.extend((0..63).map(|number| with_wrapped_keys(&value, 10_000 + 8 * number, 8)));
    store(&mut writer, &forged);
    let asked = 1_500 + 63 * 8;
    let mut reader = fixture.connect();
    fixture.proxy.reset_counts();
    let started = std::time::Instant::now();
    assert_eq!(read(&mut reader), 0);
    println!("{} calls in {:?}", fixture.proxy.total_calls(), started.elapsed());
    assert_eq!((fixture.proxy.total_calls(), counted(&mut reader)), (asked, asked));
}

/// What the broker asks for ahead of a scan counts to the scan.
#[test]
fn calls_ahead_of_a_scan_are_counted_to_it() {
    let fixture = Fixture::with_broker();
    let mut writer = fixture.connect();
    let values: Vec<Vec<u8>> = (0..40)
        .map(|number| {
            let seal = "SELECT env_encrypt('a text'::text, $1, jsonb_build_object('tenant', $2::text))";
            writer.one(seal, &[&fixture.key_id, &format!("tenant {number}")])
        })
        .collect();
    store(&mut writer, &values);
    for round in 0..3 {
        fixture.connect().run("SELECT env_cache_flush(true)");
        let mut reader = fixture.connect();
        fixture.proxy.reset_counts();
        assert_eq!(read(&mut reader), 40);
        // Those under way are begun, and at the proxy when they are answered.
        testkit::wait_until("all calls have come", || fixture.proxy.total_calls() >= 40);
        assert_eq!(fixture.proxy.total_calls(), 40, "round {round}");
        assert_eq!(counted(&mut reader), 40, "round {round}");
    }
    let ahead: i64 = writer.one("SELECT unwrapped_ahead FROM env_stat_broker", &[]);
    assert!(ahead > 20, "the rounds after the first were read ahead: {ahead}");
    // A statement that has a limit causes no call ahead, and no more than it may.
    fixture.connect().run("SELECT env_cache_flush(true)");
    let mut limited = fixture.connect();
    limited.run("SET envelope_pg.max_kms_calls_per_statement = 5");
    fixture.proxy.reset_counts();
    limited.fail("SELECT count(env_decrypt(v)) FROM stored", &[]).says("max_kms_calls_per_statement");
    assert_eq!((fixture.proxy.total_calls(), counted(&mut limited)), (5, 5));
}

#[test]
fn a_value_has_eight_wrapped_keys_at_most() {
    for fixture in fixtures() {
        let mut client = fixture.connect();
        let value = client.encrypt("a text", &fixture.key_id);
        let with_keys = |count: usize| with_wrapped_keys(&value, 0, count);
        fixture.proxy.reset_counts();
        client.fail_to_decrypt(&with_keys(9)).with("22P03");
        assert!(!client.one::<bool>("SELECT env_is_envelope($1)", &[&with_keys(9)]));
        assert_eq!(fixture.proxy.total_calls(), 0);
        client.fail_to_decrypt(&with_keys(8)).with("22000");
        assert_eq!(fixture.proxy.total_calls(), 8);
        assert_eq!(counted(&mut client), 1 + 8, "with the one that has made the data key");
    }
}

/// Who stores a value chooses which key it names. That key's refusal says nothing about another.
#[test]
fn a_key_that_is_named_in_a_region_without_a_replica_leaves_the_real_one_alone() {
    for with_broker in [true, false] {
        let builder = Cluster::builder()
            .setting("envelope_pg.cache_ttl", "1s")
            .setting("envelope_pg.stale_if_unreachable", "1h")
            .setting("envelope_pg.kms_max_attempts", "1");
        let fixture = if with_broker { Fixture::with_broker_and(builder) } else { Fixture::kms_with(builder) };
        let key = testkit::Emulator::shared().create_multi_region_key();
        let mut client = fixture.connect();
        let value = client.encrypt("a text", &key.arn);
        assert_eq!(client.decrypt(&value), "a text");
        let (real, other) = (testkit::emulator::REGION.as_bytes(), b"us-east-1");
        let at =
            value.windows(real.len()).position(|bytes| bytes == real).expect("the region is in the key's reference");
        let mut forged = value.clone();
        forged.splice(at..at + real.len(), other.iter().copied());
        for (code, sqlstate) in
            [("NotFoundException", "42704"), ("DisabledException", "55000"), ("AccessDeniedException", "42501")]
        {
            fixture.proxy.set(testkit::Rule::every(testkit::Fault::kms_error(400, code)).in_region("us-east-1"));
            for session in [&mut client, &mut fixture.connect()] {
                session.fail_to_decrypt(&forged).with(sqlstate);
            }
        }
        fixture.proxy.refuse();
        std::thread::sleep(std::time::Duration::from_millis(1_200));
        assert_eq!(client.decrypt(&value), "a text", "the session has it still");
        if with_broker {
            assert_eq!(fixture.connect().decrypt(&value), "a text", "the broker has it still");
        }
    }
}
