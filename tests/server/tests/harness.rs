//! The harness itself: a server that starts and stops, the emulator, and each fault of the proxy.

use std::io::{BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::http::{self, Message};
use testkit::proxy::FOREIGN_KEY_ARN;
use testkit::{
    Cluster, Emulator, Fault, FaultProxy, KmsKey, Nonsense, Rule, Session, expect_error, process, wait_until,
};

fn request(operation: &str, input: &Value) -> Message {
    let authorization = "AWS4-HMAC-SHA256 Credential=x/20260101/us-west-2/kms/aws4_request, Signature=00";
    let headers = [
        ("host".to_owned(), "127.0.0.1".to_owned()),
        ("x-amz-target".to_owned(), format!("TrentService.{operation}")),
        ("authorization".to_owned(), authorization.to_owned()),
    ];
    Message { first_line: "POST / HTTP/1.1".into(), headers: headers.to_vec(), body: input.to_string().into() }
}

fn generate(key: &KmsKey) -> Message {
    request("GenerateDataKey", &json!({ "KeyId": key.arn, "NumberOfBytes": 32 }))
}

fn address(proxy: &FaultProxy) -> SocketAddr {
    proxy.url().strip_prefix("http://").expect("a URL").parse().expect("an address")
}

fn json_of(answer: &Message) -> Value {
    serde_json::from_slice(&answer.body).expect("the answer is JSON")
}

#[test]
fn a_cluster_starts_takes_settings_and_leaves_nothing() {
    let cluster = Cluster::builder().setting("work_mem", "5MB").start();
    let mut client = cluster.connect("postgres", "postgres");
    assert_eq!(client.one::<String>("SHOW work_mem", &[]), "5MB");
    assert_eq!(client.one::<String>("SELECT getdatabaseencoding()", &[]), "UTF8");
    {
        let _setting = cluster.set_for_now("work_mem", "7MB");
        assert_eq!(client.one::<String>("SHOW work_mem", &[]), "7MB", "an open session has it as well");
    }
    assert_eq!(client.one::<String>("SHOW work_mem", &[]), "5MB");

    let failure = expect_error(client.query("SELECT 1 / 0", &[])).with("22012").says("division by zero");
    assert_eq!((failure.detail.as_str(), failure.hint.as_str()), ("", ""));
    wait_until("the error is logged", || cluster.log().contains("division by zero"));

    client.run("CREATE TABLE kept AS SELECT 1 AS one");
    cluster.restart();
    assert_eq!(cluster.connect("postgres", "postgres").one::<i32>("SELECT one FROM kept", &[]), 1);
    cluster.stop_immediate();
    assert!(cluster.try_connect("postgres", "postgres").is_err());
    cluster.start_again();

    let standby = cluster.standby();
    let mut reader = standby.connect("postgres", "postgres");
    assert!(reader.one::<bool>("SELECT pg_is_in_recovery()", &[]));
    assert_eq!(reader.one::<i32>("SELECT one FROM kept", &[]), 1);

    let dump = cluster.run("pg_dump", &["--schema-only", "postgres"]);
    assert!(String::from_utf8_lossy(&dump.stdout).contains("CREATE TABLE public.kept"));

    let (pid, directory) = (cluster.pid(), cluster.directory().to_owned());
    assert!(process::children(pid).len() > 3, "the postmaster has its helpers");
    drop(cluster);
    assert!(!process::is_running(pid) && !directory.exists());
}

#[test]
fn the_emulator_checks_the_encryption_context_and_follows_aliases() {
    let emulator = Emulator::shared();
    let (first, second) = (emulator.create_key(), emulator.create_key());
    let multi_region = emulator.create_multi_region_key();
    assert_eq!((&multi_region.id[..4], multi_region.id.len()), ("mrk-", 36), "as AWS names them");
    emulator.disable_key(&multi_region);
    let alias = emulator.create_alias("alias/harness", &first);
    let made = emulator
        .call("GenerateDataKey", &json!({ "KeyId": alias, "NumberOfBytes": 32, "EncryptionContext": { "a": "b" } }));
    let made = made.expect("a data key");
    assert_eq!(made["KeyId"], first.arn);
    let wrapped = made["CiphertextBlob"].as_str().expect("base64");
    assert_eq!(emulator.decrypt(wrapped, &json!({ "a": "b" })).expect("it opens"), first.arn);
    let refused = emulator.decrypt(wrapped, &json!({ "a": "c" })).expect_err("another context");
    assert_eq!(refused.code, "InvalidCiphertextException");

    emulator.update_alias("alias/harness", &second);
    let made = emulator.call("GenerateDataKey", &json!({ "KeyId": "alias/harness", "NumberOfBytes": 32 }));
    assert_eq!(made.expect("a data key")["KeyId"], second.arn);
    emulator.disable_key(&second);
    emulator.enable_key(&second);
}

#[test]
fn the_proxy_passes_counts_and_keeps_connections() {
    let emulator = Emulator::shared();
    let key = emulator.create_key();
    let proxy = FaultProxy::start(emulator.address());
    let mut stream = TcpStream::connect(address(&proxy)).expect("the proxy listens");
    let mut reader = BufReader::new(stream.try_clone().expect("a socket can be cloned"));
    for _ in 0..3 {
        stream.write_all(&generate(&key).to_bytes(true)).expect("the connection is kept");
        let answer = Message::read(&mut reader).expect("an answer").expect("an answer");
        assert_eq!((answer.status(), &json_of(&answer)["KeyId"]), (200, &key.arn.as_str().into()));
    }
    http::exchange(address(&proxy), &request("ListKeys", &json!({}))).expect("an answer");
    assert_eq!((proxy.calls("GenerateDataKey"), proxy.calls("Decrypt"), proxy.total_calls()), (3, 0, 4));
    proxy.reset_counts();
    assert_eq!(proxy.total_calls(), 0);
}

#[test]
fn the_proxy_shows_each_fault() {
    let emulator = Emulator::shared();
    let key = emulator.create_key();
    let proxy = FaultProxy::start(emulator.address());
    let call = || http::exchange(address(&proxy), &generate(&key));
    let kind = |outcome: std::io::Result<Message>| outcome.map(|_| ()).expect_err("the call fails").kind();

    proxy.set(Fault::Delay(Duration::from_millis(300)));
    let started = Instant::now();
    assert_eq!(call().expect("an answer").status(), 200);
    assert!(started.elapsed() >= Duration::from_millis(300));

    proxy.refuse();
    assert_eq!(kind(call()), ErrorKind::ConnectionRefused);
    proxy.clear();
    assert_eq!(call().expect("an answer").status(), 200);

    proxy.set(Fault::Reset);
    assert_eq!(kind(call()), ErrorKind::ConnectionReset);
    proxy.set(Fault::ResetInTheMiddle);
    assert_eq!(kind(call()), ErrorKind::ConnectionReset);
    proxy.set(Fault::HalfResponse);
    assert_eq!(kind(call()), ErrorKind::UnexpectedEof);

    proxy.set(Fault::kms_error(400, "ThrottlingException"));
    let answer = call().expect("an answer");
    assert_eq!((answer.status(), &json_of(&answer)["__type"]), (400, &"ThrottlingException".into()));

    proxy.set(Fault::Nonsense(Nonsense::Garbage));
    let answer = call().expect("an answer");
    assert!(answer.status() == 200 && serde_json::from_slice::<Value>(&answer.body).is_err());
    proxy.set(Fault::Nonsense(Nonsense::WrongKeyId));
    assert_eq!(json_of(&call().expect("an answer"))["KeyId"], FOREIGN_KEY_ARN);
    proxy.set(Fault::Nonsense(Nonsense::ShortPlaintext));
    assert_eq!(json_of(&call().expect("an answer"))["Plaintext"].as_str().map(str::len), Some(24));
    proxy.set(Fault::Nonsense(Nonsense::OtherPlaintext));
    assert_eq!(json_of(&call().expect("an answer"))["Plaintext"].as_str().map(str::len), Some(44));
    proxy.set(Fault::Nonsense(Nonsense::NoPlaintext));
    assert_eq!(json_of(&call().expect("an answer"))["Plaintext"], Value::Null);
}

#[test]
fn the_proxy_follows_rules_and_lets_go_of_hung_calls() {
    let emulator = Emulator::shared();
    let key = emulator.create_key();
    let proxy = FaultProxy::start(emulator.address());
    let status = |operation: &str| {
        let input = json!({ "KeyId": key.arn, "NumberOfBytes": 32 });
        http::exchange(address(&proxy), &request(operation, &input)).expect("an answer").status()
    };
    proxy.set_all(vec![
        Rule::every(Fault::kms_error(500, "KMSInternalException")).times(2),
        Rule::every(Fault::kms_error(400, "AccessDeniedException")).only("GenerateDataKey"),
    ]);
    assert_eq!(status("ListKeys"), 500);
    assert_eq!(status("GenerateDataKey"), 500);
    assert_eq!(status("GenerateDataKey"), 400);
    assert_eq!(status("ListKeys"), 200);

    proxy.set(Rule::every(Fault::Hang).only("GenerateDataKey"));
    let mut stream = TcpStream::connect(address(&proxy)).expect("the proxy listens");
    stream.write_all(&generate(&key).to_bytes(true)).expect("the proxy reads");
    wait_until("the call hangs", || proxy.hanging() == 1);
    assert_eq!(status("ListKeys"), 200);
    drop(stream);
    wait_until("the proxy sees the client go", || proxy.hanging() == 0);
}
