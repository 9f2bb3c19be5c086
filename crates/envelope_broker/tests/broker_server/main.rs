//! The broker on real sockets, with the local provider.

mod fixture;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use envelope_broker::Broker;
use envelope_broker::protocol::{self, ALIVE, ALIVE_INTERVAL, Command, MAX_COMMAND_BYTES, Response};
use envelope_core::context::EncryptionContext;
use envelope_core::keys::{KeyId, Provider, WrappedKey};
use envelope_core::request::{KmsErrorKind, Operation, Reply, Request};
use envelope_kms::{Lasting, Providers, Statistics};

use fixture::{Options, Server, answer_of, connect, next_answer_of, open_request, seal_request, send};

/// How long the server waits for a call.
const CALL_TIME: Duration = Duration::from_secs(1);
/// For a machine that is busy.
const MARGIN: Duration = Duration::from_secs(2);
const RELOAD_TIME: Duration = Duration::from_millis(200);

/// All that the server says until it closes the connection.
fn rest_of(mut stream: &UnixStream) -> Vec<u8> {
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("not closed: {error}"),
        _ => said,
    }
}

#[test]
fn another_user_is_told_nothing() {
    let server = Server::start(Options { foreign_user: true, ..Options::default() });
    for command in [None, Some(Command::<Request>::Status), Some(Command::Stop)] {
        let mut stream = connect(&server.path);
        if let Some(command) = &command {
            // It may be closed already.
            let _ = stream.write_all(&protocol::encode_command(command));
        }
        assert_eq!(rest_of(&stream), b"");
    }
    assert!(!server.has_ended());
}

#[test]
fn nonsense_is_not_answered_and_does_no_harm() {
    let server = Server::start(Options::default());
    let command = protocol::encode_command(&server.ask(seal_request("dev")));
    let oversized = u32::try_from(MAX_COMMAND_BYTES + 1).unwrap().to_be_bytes();
    for (is_too_long, nonsense) in [
        (true, b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        (true, vec![0xff; 4096]),
        (true, oversized.to_vec()),
        (false, vec![0; 4]),
        (false, [&[0, 0, 0, 64][..], &[0xff; 64]].concat()),
        (false, command[..command.len() - 1].to_vec()),
        (false, [&command[..3], &[command[3] - 1], &command[4..]].concat()),
    ] {
        let (mut stream, began) = (connect(&server.path), Instant::now());
        stream.write_all(&nonsense).unwrap();
        let said = rest_of(&stream);
        assert!(said.iter().all(|byte| *byte == ALIVE), "{nonsense:02x?}");
        assert!(!is_too_long || began.elapsed() < CALL_TIME, "it is not read");
        assert!(matches!(server.call(&Command::Status), Response::Status(_)));
    }
}

#[test]
fn who_does_not_come_to_the_point_is_sent_away() {
    let server = Server::start(Options::default());
    let command = &protocol::encode_command(&server.ask(seal_request("dev")));
    let path = &server.path;
    thread::scope(|scope| {
        for (sent, drips) in [(0, false), (2, false), (4, false), (command.len() / 2, false), (0, true), (4, true)] {
            scope.spawn(move || {
                let (mut stream, began) = (connect(path), Instant::now());
                stream.write_all(&command[..sent]).unwrap();
                if drips {
                    // More slowly than a call may come. Until it is closed.
                    let mut writer = stream.try_clone().unwrap();
                    scope.spawn(move || {
                        command[sent..command.len() - 1].iter().try_for_each(|byte| {
                            thread::sleep(CALL_TIME / 20);
                            writer.write_all(&[*byte])
                        })
                    });
                }
                let said = rest_of(&stream);
                let took = began.elapsed();
                assert_eq!(said, [ALIVE]);
                assert!((CALL_TIME * 9 / 10..CALL_TIME + MARGIN).contains(&took), "{sent} bytes: {took:?}");
            });
        }
    });
}

#[test]
fn idle_connections_are_no_hindrance() {
    let server = Server::start(Options::default());
    // Both ends of each are open in this process, which may have 1,024 descriptors.
    let idle: Vec<_> = (0..400).map(|_| connect(&server.path)).collect();
    let began = Instant::now();
    assert!(matches!(server.reply(seal_request("dev")), Ok(Reply::Sealing(_))));
    assert!(began.elapsed() < CALL_TIME, "{:?}", began.elapsed());
    drop(idle);
}

#[test]
fn when_all_places_are_taken_the_idle_ones_are_freed() {
    let server = Server::start(Options { max_connections: 4, ..Options::default() });
    let idle: Vec<_> = (0..4).map(|_| connect(&server.path)).collect();
    let began = Instant::now();
    assert!(matches!(server.reply(seal_request("dev")), Ok(Reply::Sealing(_))));
    let took = began.elapsed();
    assert!((CALL_TIME / 2..CALL_TIME + MARGIN).contains(&took), "{took:?}");
    drop(idle);
}

#[test]
fn the_sessions_of_a_server_share_one_data_key() {
    let server = Server::start(Options::default());
    let wrapped: Vec<_> = thread::scope(|scope| {
        let sessions: Vec<_> = (0..64).map(|_| scope.spawn(|| server.seal("dev"))).collect();
        sessions.into_iter().map(|session| session.join().unwrap()).collect()
    });
    assert!(wrapped.iter().all(|other| *other == wrapped[0]));
    assert!(matches!(server.reply(open_request(&wrapped[0])), Ok(Reply::Opening(_))));
    let status = server.status();
    assert_eq!((status.requests, status.data_keys, status.current_data_keys), (65, 1, 1));
}

#[test]
fn what_it_says_about_itself_is_true() {
    let server = Server::start(Options::default());
    let wrapped = server.seal("dev");
    for _ in 0..2 {
        assert!(matches!(server.reply(open_request(&wrapped)), Ok(Reply::Opening(_))));
    }
    let error = server.reply(seal_request("missing")).err().expect("no such key");
    assert_eq!((error.kind, error.key_id.as_str()), (KmsErrorKind::NotFound, "local:missing"));
    let idle = connect(&server.path);
    let status = server.status();
    assert_eq!((status.pid, status.requests, status.answered_from_memory), (std::process::id(), 4, 2));
    // One that carries nothing does not count.
    assert_eq!((status.connections, status.data_keys, status.current_data_keys), (1, 1, 1));
    drop(idle);

    let rows = server.statistics().rows;
    let rows: Vec<_> = rows.iter().map(|row| (row.operation, row.key_id.as_str(), row.counts.calls)).collect();
    let expected = [(Operation::GenerateDataKey, "local:dev", 1), (Operation::GenerateDataKey, "local:missing", 1)];
    assert_eq!(rows, expected);
    assert!(matches!(server.call(&Command::ResetStatistics), Response::Done));
    assert_eq!(server.statistics().rows, []);
    assert_eq!(server.status().requests, 4);
}

#[test]
fn a_flush_is_heeded_by_the_next_request_and_without_one() {
    let server = Server::start(Options::default());
    let first = server.seal("dev");
    assert_eq!(server.seal("dev"), first);
    server.flush();
    assert_ne!(server.seal("dev"), first);
    server.flush();
    wait_until("the data keys are dropped", || server.status().data_keys == 0);
}

#[test]
fn current_data_keys_are_replaced_when_they_must_be_and_not_before() {
    let server = Server::start(Options::default());
    let first = server.seal("dev");
    server.configure(|config| config.kms.aws.timeout += Duration::from_secs(1));
    assert_eq!(server.seal("dev"), first, "how patient it is does not matter");
    server.retire();
    let second = server.seal("dev");
    assert_ne!(second, first, "heeded without a call");
    assert_eq!(server.seal("dev"), second);
    assert!(matches!(server.call(&Command::Retire(KeyId::parse("local:other").unwrap())), Response::Done));
    assert_eq!(server.seal("dev"), second);
    assert!(matches!(server.call(&Command::Retire(KeyId::parse("local:dev").unwrap())), Response::Done));
    let third = server.seal("dev");
    assert_ne!(third, second);
    let keyring = server.make_keyring("other.json", "dev");
    server.configure(|config| config.kms.local_keyring = Some(keyring));
    assert_ne!(server.seal("dev"), third, "the same name is another key there");
}

#[test]
fn the_time_of_data_keys_is_that_of_the_settings() {
    let server = Server::start(Options::default());
    server.seal("dev");
    assert_eq!(server.status().data_keys, 1);
    server.configure(|config| {
        config.useful_for = Duration::ZERO;
        config.dek_max_age = Duration::ZERO;
    });
    wait_until("the data keys are dropped", || {
        let status = server.status();
        (status.data_keys, status.current_data_keys) == (0, 0)
    });
}

#[test]
fn several_requests_are_answered_together_and_in_order() {
    let server = Server::start(Options::default());
    let wrapped = server.seal("dev");
    let forged = WrappedKey { wrapped_dek: vec![7; wrapped.wrapped_dek.len()], ..wrapped.clone() };
    let requests = vec![open_request(&wrapped), open_request(&forged), seal_request("dev"), open_request(&wrapped)];
    let command = Command::AskMany { requests, settings: protocol::fingerprint(&server.config().kms) };
    let mut stream = connect(&server.path);
    send(&mut stream, &server.ask(open_request(&wrapped)));
    assert!(matches!(answer_of(&mut stream), Response::Reply(Ok(Reply::Opening(_)))));
    // Over one connection, and with other commands between.
    for _ in 0..3 {
        send(&mut stream, &command);
        let Response::Replies(replies) = next_answer_of(&mut stream) else { panic!("the replies") };
        let [Ok(Reply::Opening(one)), Err(refused), Ok(Reply::Sealing(sealing)), Ok(Reply::Opening(again))] =
            &replies[..]
        else {
            panic!("in the order of the requests")
        };
        assert_eq!(refused.kind, KmsErrorKind::WrappedKeyRejected);
        assert_eq!(sealing.wrapped, wrapped);
        assert_eq!(one.dek.commitment(), again.dek.commitment());
        send(&mut stream, &server.ask(open_request(&wrapped)));
        assert!(matches!(next_answer_of(&mut stream), Response::Reply(Ok(Reply::Opening(_)))));
    }
    assert_eq!(server.status().requests, 2 + 3 * 5);
}

/// A call to AWS KMS has tens of kB; what is answered from memory does not carry and copy them.
#[test]
fn a_request_takes_little_room() {
    let server = Server::start(Options::default());
    let providers = Providers::new(server.config().kms, &Lasting::default());
    let broker = Broker::new(providers, Statistics::default(), 1 << 20);
    let room = size_of_val(&broker.answer(1, open_request(&server.seal("dev"))));
    assert!(room < 4 * 1024, "{room}");
}

#[test]
fn settings_that_a_session_knows_first_are_waited_for() {
    let server = Server::start(Options::default());
    let file = server.make_keyring("other.json", "new");
    let mut config = server.config();
    config.kms.local_keyring = Some(file);
    let settings = protocol::fingerprint(&config.kms);
    let command = Command::Ask { request: seal_request("new"), settings, resolution: None };
    let mut stream = connect(&server.path);
    send(&mut stream, &command);
    thread::sleep(RELOAD_TIME / 4);
    server.configure(|known| *known = config);
    assert!(matches!(answer_of(&mut stream), Response::Reply(Ok(Reply::Sealing(_)))));
    // And with them the key file of before is out of use.
    let kind = server.reply(seal_request("dev")).err().expect("it is in the other file").kind;
    assert_eq!(kind, KmsErrorKind::NotFound);
}

#[test]
fn settings_that_the_broker_never_sees_are_waited_for_once() {
    let server = Server::start(Options::default());
    let ask = |settings| {
        let (mut stream, began) = (connect(&server.path), Instant::now());
        send(&mut stream, &Command::Ask { request: seal_request("dev"), settings, resolution: None });
        assert!(matches!(answer_of(&mut stream), Response::Reply(Ok(Reply::Sealing(_)))));
        began.elapsed()
    };
    assert!(ask(7) >= RELOAD_TIME);
    // The quickest of some: the machine may be busy.
    assert!((0..5).map(|_| ask(7)).min().unwrap() < RELOAD_TIME);
    assert!((0..5).map(|_| ask(protocol::fingerprint(&server.config().kms))).min().unwrap() < RELOAD_TIME);
}

#[test]
fn it_stops_when_it_is_told_to_and_has_said_so() {
    let server = Server::start(Options::default());
    assert!(matches!(server.call(&Command::Stop), Response::Done));
    wait_until("it has ended", || server.has_ended());
    assert!(UnixStream::connect(&server.path).is_err());
}

#[test]
fn it_ends_when_it_was_idle_for_long() {
    let idle_timeout = Duration::from_secs(2);
    let server = Server::start(Options { idle_timeout, ..Options::default() });
    // Requests keep it, questions about it do not.
    let began = Instant::now();
    while began.elapsed() < idle_timeout * 3 / 2 {
        server.seal("dev");
        thread::sleep(Duration::from_millis(50));
    }
    assert!(!server.has_ended());
    wait_until("it has ended", || {
        server.has_ended() || {
            // Between the two it may end.
            let asked = UnixStream::connect(&server.path)
                .and_then(|mut stream| stream.write_all(&protocol::encode_command(&Command::<Request>::Status)));
            thread::sleep(Duration::from_millis(100));
            asked.is_err() && server.has_ended()
        }
    });
}

#[test]
fn it_ends_when_nobody_can_change_its_settings_any_more() {
    let mut server = Server::start(Options::default());
    server.seal("dev");
    server.drop_config();
    wait_until("it has ended", || server.has_ended());
}

#[test]
fn the_largest_call_is_taken_at_once() {
    let server = Server::start(Options::default());
    let context = EncryptionContext::from_json(&format!(r#"{{"k": "{}"}}"#, "x".repeat(65_500))).unwrap();
    let wrapped = WrappedKey { provider: Provider::Local, key_id: "local:dev".into(), wrapped_dek: vec![0xab; 65_535] };
    let to = KeyId::parse("local:dev").unwrap();
    let command = protocol::encode_command(&server.ask(Request::Rewrap { wrapped, context, to }));
    let mut stream = connect(&server.path);
    // As a session does: what does not fit into the socket's buffer is not sent.
    stream.set_nonblocking(true).unwrap();
    assert_eq!(stream.write(&command).unwrap(), command.len());
    stream.set_nonblocking(false).unwrap();
    match answer_of(&mut stream) {
        Response::Reply(Err(error)) => assert_eq!(error.kind, KmsErrorKind::WrappedKeyRejected),
        _ => panic!("no such wrapped key was made"),
    }
}

#[test]
fn a_session_that_goes_away_cancels_its_request() {
    fixture::with_aws_credentials("a_session_that_goes_away_cancels_its_request", || {
        let endpoint = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server::start(Options { kms: Some(endpoint.local_addr().unwrap()), ..Options::default() });
        let waits = || {
            let mut stream = connect(&server.path);
            send(&mut stream, &server.ask(open_request(&aws_wrapped_key())));
            let (kms, _) = endpoint.accept().unwrap();
            kms.set_read_timeout(Some(MARGIN)).unwrap();
            read_signs_of_life::<3>(&mut stream);
            assert_eq!(server.status().connections, 2);
            // The next sign of life would be in vain, too, but it is not waited for.
            let gone = Instant::now();
            drop(stream);
            let _ = (&kms).read_to_end(&mut Vec::new()).expect("the connection to KMS is closed");
            gone.elapsed()
        };
        // The quickest of some: the machine may be busy.
        assert!((0..5).map(|_| waits()).min().unwrap() < ALIVE_INTERVAL / 2);
        assert_eq!(server.status().connections, 1);
        let rows = server.statistics().rows;
        assert_eq!((rows.len(), rows[0].counts.cancelled), (1, 5));
    });
}

#[test]
fn it_does_not_end_while_a_request_is_under_way() {
    fixture::with_aws_credentials("it_does_not_end_while_a_request_is_under_way", || {
        let endpoint = TcpListener::bind("127.0.0.1:0").unwrap();
        let (kms, idle_timeout) = (Some(endpoint.local_addr().unwrap()), Duration::from_millis(100));
        let server = Server::start(Options { kms, idle_timeout, ..Options::default() });
        let mut stream = connect(&server.path);
        send(&mut stream, &server.ask(open_request(&aws_wrapped_key())));
        let _kms = endpoint.accept().unwrap();
        // Several rounds of housekeeping long.
        read_signs_of_life::<9>(&mut stream);
        assert!(!server.has_ended());
        drop(stream);
        wait_until("it has ended", || server.has_ended());
    });
}

fn aws_wrapped_key() -> WrappedKey {
    let key_id = "arn:aws:kms:us-west-2:111122223333:key/715c0818-5825-4245-a755-138a6d9a11e6".to_owned();
    WrappedKey { provider: Provider::AwsKms, key_id, wrapped_dek: vec![1] }
}

fn read_signs_of_life<const COUNT: usize>(stream: &mut UnixStream) {
    let mut signs = [1; COUNT];
    stream.read_exact(&mut signs).unwrap();
    assert_eq!(signs, [ALIVE; COUNT], "while KMS does not answer");
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline, "not in 10 s: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
