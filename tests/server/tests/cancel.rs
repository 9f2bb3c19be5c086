//! A KMS endpoint that never answers: cancel, timeout, termination and shutdown end the wait at once.

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use postgres::Error;
use rustix::process::Signal;
use testkit::install::Installation;
use testkit::{Client, Failure, Fault, Fixture, Session, expect_error, process, wait_until};

testkit::shared_fixture!(Fixture::kms());

/// "Well under a second", with room for a machine that is busy.
const AT_ONCE: Duration = Duration::from_secs(1);

/// What a statement that hung left: its session, how it ended, and when.
type Ended = (Client, Result<Vec<u8>, Error>, Instant);

/// Starts `env_encrypt` in a thread, and returns when its call hangs in the proxy.
fn hang_encrypt(fixture: &Fixture, mut client: Client) -> JoinHandle<Ended> {
    let key_id = fixture.key_id.clone();
    hang(fixture, move || {
        let result = client.query_one("SELECT env_encrypt('a text'::text, $1)", &[&key_id]);
        (client, result.map(|row| row.get(0)), Instant::now())
    })
}

fn hang_decrypt(fixture: &Fixture, mut client: Client, value: Vec<u8>) -> JoinHandle<Ended> {
    hang(fixture, move || {
        let result = client.query_one("SELECT env_decrypt($1)", &[&value]);
        (client, result.map(|row| row.get::<_, String>(0).into_bytes()), Instant::now())
    })
}

fn hang(fixture: &Fixture, statement: impl FnOnce() -> Ended + Send + 'static) -> JoinHandle<Ended> {
    fixture.proxy.set(Fault::Hang);
    let already = fixture.proxy.hanging();
    let running = thread::spawn(statement);
    wait_until("the call hangs in the proxy", || fixture.proxy.hanging() > already);
    running
}

fn join(running: JoinHandle<Ended>) -> Ended {
    running.join().expect("the statement's thread does not panic")
}

fn report(what: &str, elapsed: Duration) {
    println!("{what}: {:.1} ms", elapsed.as_secs_f64() * 1000.0);
    assert!(elapsed < AT_ONCE, "{what} took {elapsed:?}");
}

#[test]
fn cancel_ends_a_hung_call_and_the_session_goes_on() {
    let fixture = fixture();
    let mut witness = fixture.connect();
    let value = witness.encrypt("a text", &fixture.key_id);
    let mut client = fixture.connect();
    let pid = client.backend();
    for operation in ["GenerateDataKey", "Decrypt"] {
        let running = match operation {
            "Decrypt" => hang_decrypt(&fixture, client, value.clone()),
            _ => hang_encrypt(&fixture, client),
        };
        let started = Instant::now();
        assert!(witness.one::<bool>("SELECT pg_cancel_backend($1)", &[&pid]));
        let (session, result, ended) = join(running);
        expect_error(result).with("57014");
        report(&format!("cancel of a hung {operation}"), ended - started);
        wait_until("the request is dropped", || fixture.proxy.hanging() == 0);

        fixture.proxy.clear();
        client = session;
        let written = client.encrypt("after the cancel", &fixture.key_id);
        assert_eq!(client.decrypt(&written), "after the cancel");
        client.run("SELECT env_cache_flush()");
        assert_eq!(client.decrypt(&value), "a text", "no late answer gets in the way");
        client.run("SELECT env_cache_flush()");
    }
    assert_eq!(client.backend(), pid);
    assert_eq!(witness.one::<i32>("SELECT 1", &[]), 1);
}

#[test]
fn cancel_ends_the_wait_between_retries_and_for_a_slow_answer() {
    let fixture = fixture();
    let mut witness = fixture.connect();
    for fault in [Fault::kms_error(400, "ThrottlingException"), Fault::Delay(Duration::from_secs(5))] {
        let mut client = fixture.connect();
        let pid = client.backend();
        fixture.proxy.reset_counts();
        fixture.proxy.set(fault.clone());
        let key_id = fixture.key_id.clone();
        let running = thread::spawn(move || {
            let result = client.query_one("SELECT env_encrypt('a text'::text, $1)", &[&key_id]);
            (client, result.map(|row| row.get(0)), Instant::now())
        });
        wait_until("the first call has come", || fixture.proxy.total_calls() > 0);
        let started = Instant::now();
        witness.run(&format!("SELECT pg_cancel_backend({pid})"));
        let (mut client, result, ended) = join(running);
        expect_error(result).with("57014");
        report(&format!("cancel under {fault:?}"), ended - started);
        fixture.proxy.clear();
        client.encrypt("a text", &fixture.key_id);
    }
}

#[test]
fn statement_timeout_ends_a_hung_call() {
    const LIMIT: Duration = Duration::from_millis(200);
    let fixture = fixture();
    let mut client = fixture.connect();
    client.run(&format!("SET statement_timeout = {}", LIMIT.as_millis()));
    let started = Instant::now();
    let (mut client, result, ended) = join(hang_encrypt(&fixture, client));
    expect_error(result).with("57014").says("statement timeout");
    report("statement_timeout overshoot", (ended - started).saturating_sub(LIMIT));
    fixture.proxy.clear();
    client.run("SET statement_timeout = 0");
    client.encrypt("a text", &fixture.key_id);
}

#[test]
fn terminate_ends_a_hung_backend_and_no_other() {
    let fixture = fixture();
    let mut witness = fixture.connect();
    witness.run("CREATE TEMP TABLE witness AS SELECT 42 AS answer");
    let mut client = fixture.connect();
    let pid = client.backend();
    let running = hang_encrypt(&fixture, client);
    let started = Instant::now();
    assert!(witness.one::<bool>("SELECT pg_terminate_backend($1)", &[&pid]));
    let (_, result, _) = join(running);
    let error = result.expect_err("the backend is gone");
    // The client may see the connection close before it reads why.
    if let Some(failure) = Failure::of(&error) {
        failure.with("57P01");
    }
    wait_until("the process is gone", || !process::is_running(pid));
    report("termination of a hung backend", started.elapsed());
    assert_eq!(witness.one::<i32>("SELECT answer FROM witness", &[]), 42, "the server did not restart");
    wait_until("the request is dropped", || fixture.proxy.hanging() == 0);
}

#[test]
fn the_client_can_cancel_and_go_away() {
    let fixture = fixture();
    let mut client = fixture.connect();
    let pid = client.backend();
    let cancel = client.cancel_token();
    let running = hang_encrypt(&fixture, client);
    // The protocol's own cancel request, as Ctrl-C in psql sends it.
    let started = Instant::now();
    cancel.cancel_query(postgres::NoTls).expect("the server takes the request");
    let (client, result, ended) = join(running);
    expect_error(result).with("57014");
    report("cancel by the client", ended - started);
    drop(client);
    wait_until("the process is gone", || !process::is_running(pid));
    wait_until("the request is dropped", || fixture.proxy.hanging() == 0);

    // A client that is killed while its call hangs.
    let mut psql = fixture.cluster.tool("psql");
    let statement = format!("SELECT env_encrypt('a text'::text, '{}')", fixture.key_id);
    psql.args(["-c", "SET client_connection_check_interval = '50ms'", "-c", &statement, "postgres"]);
    let mut psql = psql.spawn().expect("psql starts");
    wait_until("the call hangs in the proxy", || fixture.proxy.hanging() > 0);
    let query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'psql'";
    let pid = fixture.connect().one::<i32>(query, &[]);
    psql.kill().expect("psql runs");
    psql.wait().expect("psql ends");
    wait_until("the process is gone", || !process::is_running(pid));
    wait_until("the request is dropped", || fixture.proxy.hanging() == 0);
}

#[test]
fn many_cancels_leak_neither_threads_nor_descriptors() {
    let fixture = fixture();
    let mut witness = fixture.connect();
    let mut client = fixture.connect();
    let pid = client.backend();
    client.encrypt("a text", &fixture.key_id);
    let mut before = None;
    for round in 0..30 {
        client.run("SELECT env_cache_flush()");
        let running = hang_encrypt(&fixture, client);
        witness.run(&format!("SELECT pg_cancel_backend({pid})"));
        let (session, result, _) = join(running);
        expect_error(result).with("57014");
        client = session;
        wait_until("the request is dropped", || fixture.proxy.hanging() == 0);
        // Connections of the first rounds may stay in the client's pool.
        if round == 9 {
            before = Some(usage(pid));
        }
    }
    let (threads, descriptors) = before.expect("ten rounds are over");
    let after = usage(pid);
    assert!(after.0 <= threads, "{threads} threads became {}", after.0);
    assert!(after.1 <= descriptors + 2, "{descriptors} descriptors became {}", after.1);
}

#[test]
fn nothing_outlives_the_postmaster() {
    let fixture = Fixture::kms();
    // One backend that has talked to KMS and is idle, and one whose call hangs.
    let mut idle = fixture.connect();
    idle.encrypt("a text", &fixture.key_id);
    let mut client = fixture.connect();
    let pids = [idle.backend(), client.backend()];
    let running = hang_encrypt(&fixture, client);
    let children = process::children(fixture.cluster.pid());
    assert!(pids.iter().all(|pid| children.contains(pid)));

    let started = Instant::now();
    assert!(process::send_signal(fixture.cluster.pid(), Signal::KILL));
    let (_, result, ended) = join(running);
    result.expect_err("the backend is gone");
    report("end of a hung backend after the postmaster's death", ended - started);
    for pid in children {
        wait_until("every process of the server is gone", || !process::is_running(pid));
    }
    wait_until("the request is dropped", || fixture.proxy.hanging() == 0);
}

/// For KMS, and for the broker, which waits for KMS.
#[test]
fn a_session_shows_what_it_waits_for() {
    // Before, the events of extensions have no names.
    let event = if Installation::current().major_version() < 17 { "Extension" } else { "EnvelopePgKms" };
    for fixture in [Fixture::kms(), Fixture::with_broker()] {
        let mut witness = fixture.connect();
        // A wait event that another session has named has that name in this one, too.
        for _ in 0..2 {
            let mut client = fixture.connect();
            let pid = client.backend();
            let running = hang_encrypt(&fixture, client);
            let shown = "SELECT concat_ws('/', wait_event_type, wait_event) FROM pg_stat_activity WHERE pid = $1";
            let expected = format!("Extension/{event}");
            wait_until("the session waits", || witness.one::<String>(shown, &[&pid]) == expected);
            assert!(witness.one::<bool>("SELECT pg_cancel_backend($1)", &[&pid]));
            expect_error(join(running).1).with("57014");
            wait_until("the request is dropped", || fixture.proxy.hanging() == 0);
        }
        if event == "EnvelopePgKms" {
            let known = "SELECT count(*) FROM pg_wait_events WHERE type = 'Extension' AND name = 'EnvelopePgKms'";
            assert_eq!(witness.one::<i64>(known, &[]), 1);
        }
    }
}

#[test]
fn shutdown_does_not_wait_for_kms() {
    let fixture = Fixture::kms();
    let client = fixture.connect();
    let running = hang_encrypt(&fixture, client);
    let started = Instant::now();
    fixture.cluster.restart();
    println!("fast shutdown and start with a hung call: {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(5));
    join(running).1.expect_err("the backend is gone");
    fixture.proxy.clear();
    fixture.connect().encrypt("a text", &fixture.key_id);
    assert!(!fixture.cluster.log().contains("terminated by signal"), "{}", fixture.cluster.log());
}

/// Threads and open descriptors of a process.
fn usage(pid: i32) -> (usize, usize) {
    let count = |what: &str| std::fs::read_dir(format!("/proc/{pid}/{what}")).expect("it runs").count();
    (count("task"), count("fd"))
}
