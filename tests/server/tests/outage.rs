//! Fault by fault: what a client sees, how soon, and how many calls reach KMS. And the time limit of a call, with all that is
//! inside it.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use testkit::{Client, Cluster, Failure, Fault, Fixture, KmsKey, Nonsense, Rule, Session, expect_error, wait_until};

/// "Well under a second", with room for a machine that is busy.
const AT_ONCE: Duration = Duration::from_secs(1);

const FAULTS_HEAD: &str = "# Faults, and what a statement gets

Written by `tests/server/tests/outage.rs`, which shows each fault to the extension between a real server and a KMS endpoint: a new
session, no data key in memory, `kms_max_attempts` 3. With data keys in memory, OPERATIONS.md says what goes on. Each session works
again as soon as the fault is over; the test sees to that, too.

| fault | operation | SQLSTATE | message | attempts that reach KMS | HINT |
|---|---|---|---|---|---|
";

/// What is expected of a fault.
struct Expected {
    name: &'static str,
    fault: Fault,
    /// Empty: the call succeeds.
    sqlstate: &'static str,
    /// In DETAIL.
    fact: &'static str,
    /// Calls that reach the endpoint.
    calls: RangeInclusive<usize>,
}

const fn expected(
    name: &'static str,
    fault: Fault,
    sqlstate: &'static str,
    fact: &'static str,
    calls: RangeInclusive<usize>,
) -> Expected {
    Expected { name, fault, sqlstate, fact, calls }
}

const fn code(status: u16, code: &'static str, sqlstate: &'static str, calls: usize) -> Expected {
    expected(code, Fault::KmsError { status, code }, sqlstate, code, calls..=calls)
}

/// With the settings' own `kms_timeout` (10 s) and `kms_max_attempts` (3).
const FAULTS: &[Expected] = &[
    expected("reset", Fault::Reset, "58000", "3 attempts", 3..=3),
    expected("reset in the middle", Fault::ResetInTheMiddle, "58000", "attempt", 3..=3),
    expected("half an answer", Fault::HalfResponse, "58000", "attempt", 3..=3),
    expected("garbage", Fault::Nonsense(Nonsense::Garbage), "58000", "could not be read", 3..=3),
    expected("an answer of 3 GB", Fault::Endless, "58000", "larger than any answer of KMS", 1..=3),
    code(400, "ThrottlingException", "53400", 3),
    code(429, "TooManyRequestsException", "53400", 3),
    code(500, "KMSInternalException", "58000", 3),
    code(503, "ServiceUnavailable", "58000", 3),
    code(400, "AccessDeniedException", "42501", 1),
    code(400, "DisabledException", "55000", 1),
    // What AWS answers for the transient failures of a custom key store.
    code(400, "KMSInvalidStateException", "58000", 3),
    code(500, "KeyUnavailableException", "58000", 3),
    code(503, "DependencyTimeoutException", "58000", 3),
    code(400, "CloudHsmClusterNotActiveException", "58000", 3),
    code(400, "XksProxyUriUnreachableException", "58000", 3),
    expected("pending deletion", PENDING_DELETION, "55000", "pending deletion", 1..=1),
    code(400, "RequestTimeout", "58000", 3),
    code(400, "RequestThrottled", "53400", 3),
    code(503, "SlowDown", "53400", 3),
    expected("429 without a code", Fault::Http(429), "53400", "request id", 3..=3),
    expected("503 without a code", Fault::Http(503), "58000", "HTTP status 503", 3..=3),
    // Once more with credentials that are looked up anew.
    code(400, "ExpiredTokenException", "58000", 2),
    expected("the clock is wrong", WRONG_CLOCK, "58000", "the clock of the server is wrong", 2..=2),
    code(400, "InvalidKeyUsageException", "22023", 1),
    code(400, "ValidationException", "22023", 1),
    code(400, "NotFoundException", "42704", 1),
    expected("answers after 200 ms", Fault::Delay(Duration::from_millis(200)), "", "", 1..=1),
];

const PENDING_DELETION: Fault = Fault::KmsMessage {
    status: 400,
    code: "KMSInvalidStateException",
    message: "arn:aws:kms:... is pending deletion.",
};

const WRONG_CLOCK: Fault = Fault::KmsMessage {
    status: 400,
    code: "InvalidSignatureException",
    message: "Signature expired: 20261126T100000Z is now earlier than 20261126T110000Z (20261126T111500Z - 15 min.)",
};

/// With a `kms_timeout` of one second, of which each attempt may take a third; the waits between them are random.
const SLOW_FAULTS: &[Expected] = &[
    expected("hang, limit 1 s", Fault::Hang, "58000", "attempt", 1..=3),
    expected("answers after 600 ms, limit 1 s", Fault::Delay(Duration::from_millis(600)), "58000", "attempt", 1..=3),
];

/// Refused connections reach nobody.
const REFUSED: Expected = expected("refused", Fault::Pass, "58000", "3 attempts", 0..=0);

const OPERATIONS: [&str; 2] = ["GenerateDataKey", "Decrypt"];

/// One operation under a fault.
struct Outcome {
    client: Client,
    failure: Option<Failure>,
    elapsed: Duration,
}

/// Has a session of its own for each fault, key and operation meet the fault, all at the same time: most of it is waiting.
/// Returns the rows of the table.
fn meet(fixture: &Fixture, faults: &[Expected], bound: Duration) -> Vec<String> {
    let keys: Vec<KmsKey> = faults.iter().map(|_| fixture.new_key()).collect();
    let mut writer = fixture.connect();
    let values: Vec<Vec<u8>> = keys.iter().map(|key| writer.encrypt("a text", &key.arn)).collect();
    let rules = faults.iter().zip(&keys).map(|(expected, key)| Rule::every(expected.fault.clone()).for_key(&key.arn));
    fixture.proxy.set_all(rules.collect());
    if faults.iter().any(|expected| expected.name == REFUSED.name) {
        fixture.proxy.refuse();
    }
    fixture.proxy.reset_counts();
    let run = |key: &KmsKey, value: &[u8], operation: &str| {
        let mut client = fixture.connect();
        // The library is loaded before the time counts.
        client.run("SELECT env_is_envelope('')");
        let started = Instant::now();
        let failure = match operation {
            "Decrypt" => client.try_decrypt(value).err(),
            _ => client.try_encrypt("a text", &key.arn).err(),
        };
        Outcome { client, failure, elapsed: started.elapsed() }
    };
    let outcomes: Vec<[Outcome; 2]> = thread::scope(|scope| {
        let run = &run;
        let started: Vec<_> = (keys.iter().zip(&values))
            .map(|(key, value)| OPERATIONS.map(|operation| scope.spawn(move || run(key, value, operation))))
            .collect();
        let joined = started.into_iter().map(|pair| pair.map(|thread| thread.join().expect("no thread panics")));
        joined.collect()
    });
    let mut rows = Vec::new();
    for ((expected, key), pair) in faults.iter().zip(&keys).zip(&outcomes) {
        for (operation, outcome) in OPERATIONS.iter().zip(pair) {
            let calls = fixture.proxy.calls_for(&key.arn, operation);
            rows.push(row(expected, operation, outcome));
            check(expected, key, operation, outcome, calls);
            assert!(outcome.elapsed < bound, "{}, {operation}: {:?}", expected.name, outcome.elapsed);
        }
    }
    fixture.proxy.clear();
    for (value, pair) in values.iter().zip(outcomes) {
        for mut outcome in pair {
            assert_eq!(outcome.client.decrypt_when_back(value), "a text", "good again in the same session");
        }
        assert_eq!(fixture.connect().decrypt(value), "a text", "good again in a new session");
    }
    rows
}

fn row(expected: &Expected, operation: &str, outcome: &Outcome) -> String {
    let Some(failure) = &outcome.failure else {
        return format!("| {} | {operation} | none | success | {} | |", expected.name, attempts(expected));
    };
    let Failure { sqlstate, message, hint, .. } = failure;
    format!("| {} | {operation} | {sqlstate} | {message} | {} | {hint} |", expected.name, attempts(expected))
}

/// How often the call came to KMS.
fn attempts(expected: &Expected) -> String {
    match (expected.calls.start(), expected.calls.end()) {
        (from, to) if from == to => from.to_string(),
        (from, to) => format!("{from} to {to}"),
    }
}

fn check(expected: &Expected, key: &KmsKey, operation: &str, outcome: &Outcome, calls: usize) {
    let name = expected.name;
    assert!(expected.calls.contains(&calls), "{operation}, {name}: {calls} calls, {:?}", outcome.failure);
    match &outcome.failure {
        None => assert_eq!(expected.sqlstate, "", "{operation}, {name} succeeds"),
        Some(failure) => {
            let failure = failure.clone().with(expected.sqlstate);
            for fact in [operation, &key.arn, expected.fact, "host 127.0.0.1:", "region us-west-2", "after ", " ms"] {
                assert!(failure.detail.contains(fact), "{fact} is not in {failure:?}");
            }
            assert!(!failure.hint.is_empty(), "{failure:?}");
        }
    }
}

/// Set `UPDATE_EXPECTED=1` to write docs/FAULTS.md anew, and review what changed.
#[test]
fn fault_by_fault() {
    // Two waits of at most 1 and 2 seconds between three attempts.
    let parts: [(&[Expected], &str, Duration); 3] = [
        (&[REFUSED], "10s", Duration::from_secs(6)),
        (FAULTS, "10s", Duration::from_secs(8)),
        (SLOW_FAULTS, "1s", Duration::from_secs(2)),
    ];
    let mut rows = Vec::new();
    thread::scope(|scope| {
        let parts = parts.map(|(faults, limit, bound)| {
            let builder =
                Cluster::builder().setting("envelope_pg.kms_timeout", limit).setting("max_connections", "150");
            scope.spawn(move || meet(&Fixture::kms_with(builder), faults, bound))
        });
        rows.extend(parts.into_iter().flat_map(|part| part.join().expect("each part passes")));
    });
    let found = format!("{FAULTS_HEAD}{}\n", rows.join("\n"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/FAULTS.md");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(&path, &found).expect("docs/ can be written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    for (found, written) in found.lines().zip(written.lines()) {
        assert_eq!(found, written, "docs/FAULTS.md is what the tests saw");
    }
    assert_eq!(found.lines().count(), written.lines().count());
}

#[test]
fn the_time_limit_holds_whatever_the_attempts() {
    let slow = || Fault::Delay(Duration::from_millis(600));
    let throttled = Fault::kms_error(400, "ThrottlingException");
    let internal = Fault::kms_error(500, "KMSInternalException");
    thread::scope(|scope| {
        // An attempt may take its share of the limit only, so that one that hangs leaves time for another.
        scope.spawn(|| limit_holds("1", vec![(slow(), true)]));
        scope.spawn(|| limit_holds("2", vec![(slow(), false), (Fault::Hang, false), (internal, false)]));
        scope.spawn(|| limit_holds("20", vec![(slow(), false), (Fault::Reset, false), (throttled, false)]));
    });
}

fn limit_holds(attempts: &str, faults: Vec<(Fault, bool)>) {
    let builder = Cluster::builder().setting("envelope_pg.kms_timeout", "1s");
    let fixture = Fixture::kms_with(builder.setting("envelope_pg.kms_max_attempts", attempts));
    for (fault, succeeds) in faults {
        fixture.proxy.set(fault.clone());
        fixture.proxy.reset_counts();
        let mut client = fixture.connect();
        let started = Instant::now();
        let outcome = client.try_encrypt("a text", &fixture.key_id);
        let (elapsed, calls) = (started.elapsed(), fixture.proxy.total_calls());
        let failure = outcome.as_ref().err().map(|failure| failure.sqlstate.as_str());
        println!("limit 1 s, {attempts} attempts, {fault:?}: {elapsed:?}, {calls} calls, {failure:?}");
        assert!(elapsed < Duration::from_secs(2), "{fault:?} with {attempts} attempts took {elapsed:?}");
        assert_eq!(outcome.is_ok(), succeeds, "{fault:?} with {attempts} attempts");
        assert!(calls >= 1 && calls <= attempts.parse().expect("a number"), "{calls} calls");
        fixture.proxy.clear();
    }
}

#[test]
fn throttling_until_the_time_limit_is_still_throttling() {
    let fixture = Fixture::kms_with(
        Cluster::builder().setting("envelope_pg.kms_timeout", "1s").setting("envelope_pg.kms_max_attempts", "20"),
    );
    let other = fixture.new_key().arn;
    fixture.proxy.set(Rule::every(Fault::kms_error(400, "ThrottlingException")).for_key(&fixture.key_id));
    let mut client = fixture.connect();
    let failure = client.fail_to_encrypt(&fixture.key_id);
    // KMS has answered each attempt, so nothing is wrong with its region.
    let outcome = client.try_encrypt("a text", &other).map(drop);
    println!("throttled until the limit: {}; then another key: {outcome:?}", failure.sqlstate);
    failure.with("53400").says("ThrottlingException");
    assert_eq!(outcome, Ok(()), "only the key that was throttled has an open breaker");
}

#[test]
fn credentials_that_do_not_come_are_inside_the_time_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/credentials", listener.local_addr().expect("a bound socket has an address"));
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // Counts requests that have come, and never answers one.
            thread::spawn(move || {
                if stream.read(&mut [0; 16]).is_ok_and(|bytes| bytes > 0) {
                    ASKED.fetch_add(1, Ordering::Relaxed);
                }
                while stream.read(&mut [0; 512]).is_ok_and(|bytes| bytes > 0) {}
            });
        }
    });
    let fixture = Fixture::kms_with(
        Cluster::builder()
            .without_environment("AWS_ACCESS_KEY_ID")
            .without_environment("AWS_SECRET_ACCESS_KEY")
            .environment("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url)
            .setting("envelope_pg.kms_timeout", "1s"),
    );
    time_limit_holds(&fixture, "credentials endpoint that hangs");
    fixture.cluster.set("envelope_pg.kms_timeout", "30s");
    let already = ASKED.load(Ordering::Relaxed);
    cancel_works(&fixture, "credentials endpoint that hangs", || {
        wait_until("credentials are asked for", || ASKED.load(Ordering::Relaxed) > already);
    });
    assert_eq!(fixture.proxy.total_calls(), 0);
}

#[test]
fn a_name_that_does_not_resolve_is_inside_the_time_limit() {
    let fixture = Fixture::kms_with(Cluster::builder().setting("envelope_pg.kms_timeout", "1s"));
    fixture.cluster.set("envelope_pg.kms_endpoint_url", "http://name.invalid:1");
    time_limit_holds(&fixture, "name that does not resolve");
    // Whether the resolver answers at once or never, such a call lasts.
    fixture.cluster.set("envelope_pg.kms_max_attempts", "20");
    fixture.cluster.set("envelope_pg.kms_timeout", "30s");
    cancel_works(&fixture, "name that does not resolve", || {});
}

fn time_limit_holds(fixture: &Fixture, what: &str) {
    let started = Instant::now();
    let failure = fixture.connect().fail_to_encrypt(&fixture.key_id).with("58000");
    println!("{what}, limit 1 s: {:?}, {}, {}", started.elapsed(), failure.message, failure.detail);
    assert!(started.elapsed() < Duration::from_millis(2_500), "{what}: {:?}", started.elapsed());
}

fn cancel_works(fixture: &Fixture, what: &str, wait: impl Fn()) {
    let mut client = fixture.connect();
    let pid = client.backend();
    let mut witness = fixture.connect();
    let key_id = fixture.key_id.clone();
    let running = thread::spawn(move || {
        let result = client.query("SELECT env_encrypt('a text'::text, $1)", &[&key_id]);
        (result, Instant::now())
    });
    wait();
    witness.see_waiting(pid);
    let started = Instant::now();
    witness.run(&format!("SELECT pg_cancel_backend({pid})"));
    let (result, ended) = running.join().expect("the statement's thread does not panic");
    expect_error(result).with("57014");
    println!("{what}, cancel: {:?}", ended - started);
    assert!(ended - started < AT_ONCE, "{what}: {:?}", ended - started);
}
