//! Every message there and back, cut off, corrupted, and at its largest.

use std::collections::BTreeMap;

use envelope_core::context::EncryptionContext;
use envelope_core::keys::{Commitment, KeyArn, KeyId, Provider};
use envelope_core::request::{Calls, KmsErrorKind, Operation, SealingLimits, Terms};
use envelope_kms::Statistics;
use envelope_kms::statistics::{CallCounts, CallStatistics};

use super::*;

const KEY: &str = "arn:aws:kms:us-west-2:111122223333:key/715c0818-5825-4245-a755-138a6d9a11e6";
const DEK: [u8; KEY_BYTES] = [0xd5; KEY_BYTES];
/// What stands in front of a response.
const FRONT_BYTES: usize = 1 + LENGTH_BYTES;

fn dek() -> Dek {
    Dek::take_from(&mut DEK.clone()).unwrap()
}

fn wrapped(bytes: usize) -> WrappedKey {
    WrappedKey { provider: Provider::AwsKms, key_id: KEY.to_owned(), wrapped_dek: vec![0xab; bytes] }
}

fn context() -> EncryptionContext {
    EncryptionContext::from_json(r#"{"table": "patients", "tenant": "é"}"#).unwrap()
}

fn commands() -> Vec<Command> {
    let terms = Terms {
        fresh_for: Duration::from_secs(900),
        stale_for: Duration::new(4_500, 1),
        calls: Calls::Ahead,
        is_ahead: false,
    };
    let limits = SealingLimits {
        max_age: Duration::from_secs(86_400),
        max_uses: Some(u64::MAX),
        max_bytes: None,
        wanted_bytes: 12,
    };
    let local = WrappedKey { provider: Provider::Local, key_id: "local:dev".into(), ..wrapped(65) };
    let requests = [
        Request::SealingKey { key_id: KeyId::parse("alias/app").unwrap(), context: context(), terms, limits },
        Request::ReplaceDek { key_id: KeyId::parse("local:dev").unwrap(), context: EncryptionContext::default() },
        Request::OpeningKey {
            wrapped: wrapped(16),
            context: context(),
            commitment: Some(Commitment([7; KEY_BYTES])),
            terms,
        },
        Request::Rewrap { wrapped: local, context: context(), to: KeyId::parse(KEY).unwrap() },
    ];
    let resolution = Resolution { key_arn: KEY.into(), age: Duration::from_secs(9) };
    let resolutions = [None, Some(resolution)].into_iter().cycle();
    let asks = requests.into_iter().zip(resolutions).map(|(request, resolution)| Command::Ask {
        request,
        settings: u64::MAX,
        resolution,
    });
    let asks: Vec<_> = asks.collect();
    let requests = asks.iter().filter_map(|ask| match ask {
        Command::Ask { request, .. } => Some(request.clone()),
        _ => None,
    });
    let many = Command::AskMany { requests: requests.collect(), settings: 7 };
    let retire = Command::Retire(KeyId::parse("alias/app").unwrap());
    let others = [many, Command::Status, Command::Statistics, Command::ResetStatistics, Command::Stop, retire];
    asks.into_iter().chain(others).collect()
}

fn responses() -> Vec<Response> {
    let consent = ConsentAge { age: Duration::from_millis(1_234), is_stale: true, took_call: true, calls: 2 };
    let sealing = SealingGrant {
        dek: dek(),
        wrapped: wrapped(16),
        age: Duration::from_secs(7),
        lease: Lease { uses: Some(62), bytes: None },
        consent,
    };
    let mut error = KmsError::new(KmsErrorKind::InvalidRequest("no such thing".into()), Operation::ReEncrypt, KEY);
    error.metadata.code = Some("ValidationException".into());
    error.elapsed = Some(Duration::from_millis(3));
    let status = Status {
        pid: 4711,
        started: SystemTime::now(),
        requests: 3,
        answered_from_memory: 2,
        connections: 1,
        data_keys: 5,
        current_data_keys: 4,
        unwrapped_ahead: 38,
        open_breakers: 2,
        memory: 1 << 40,
        waiting_calls: 3,
        data_key_bytes: 10,
        cache_hits: 11,
        cache_misses: 12,
        evictions: 13,
        evicted_needed: 14,
    };
    let statistics = Statistics::new();
    statistics.served_stale(Operation::Decrypt, KEY);
    let opening = || Ok(Reply::Opening(OpeningGrant { dek: dek(), key_id: KEY.into(), consent }));
    vec![
        Response::Replies(vec![opening(), Err(error.clone()), opening()]),
        Response::Replies(Vec::new()),
        Response::Reply(Ok(Reply::Sealing(sealing))),
        Response::Reply(Ok(Reply::Opening(OpeningGrant { dek: dek(), key_id: KEY.into(), consent }))),
        Response::Reply(Ok(Reply::Rewrapped(wrapped(16)))),
        Response::Reply(Err(error)),
        Response::Status(status),
        Response::Statistics(statistics.snapshot()),
        Response::Done,
    ]
}

/// The part of a message behind its length, which must be true.
fn body(message: &[u8], front_bytes: usize) -> Vec<u8> {
    let (front, body) = message.split_at(front_bytes);
    assert_eq!(front[front_bytes - LENGTH_BYTES..], u32::try_from(body.len()).unwrap().to_be_bytes());
    body.to_vec()
}

fn call_bodies() -> Vec<Vec<u8>> {
    commands().iter().map(|command| body(&encode_command(command), LENGTH_BYTES)).collect()
}

fn answer_bodies() -> Vec<Vec<u8>> {
    responses().into_iter().map(|response| body(&encode_response(response), FRONT_BYTES)).collect()
}

/// A call that was accepted is a sound one: it can be written, and means the same then.
fn check_call(bytes: &[u8]) {
    if let Ok(command) = decode_command(bytes) {
        assert!(decode_command(&body(&encode_command(&command), LENGTH_BYTES)) == Ok(command));
    }
}

fn check_answer(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    match decode_response(&mut bytes) {
        Ok(response) => {
            let mut body = body(&encode_response(response), FRONT_BYTES);
            assert!(decode_response(&mut body).is_ok());
        }
        Err(Malformed) => {
            assert!(bytes.iter().all(|byte| *byte == 0), "a malformed response may have a data key anywhere")
        }
    }
}

#[test]
fn a_command_has_a_few_requests_at_most() {
    let Command::Ask { request, .. } = commands().swap_remove(0) else { panic!("a request") };
    let command = |requests| Command::AskMany { requests: vec![request.clone(); requests], settings: 0 };
    let read = |requests| decode_command(&body(&encode_command(&command(requests)), LENGTH_BYTES));
    assert_eq!(read(MAX_REQUESTS), Ok(command(MAX_REQUESTS)));
    assert_eq!(read(MAX_REQUESTS + 1), Err(Malformed));
}

#[test]
fn calls_go_there_and_back() {
    for (command, body) in commands().into_iter().zip(call_bodies()) {
        assert_eq!(decode_command(&body), Ok(command));
    }
}

#[test]
fn answers_go_there_and_back_and_leave_no_data_key() {
    for body in answer_bodies() {
        let mut read = body.clone();
        let Ok(response) = decode_response(&mut read) else { panic!("a response") };
        let has_dek = body[0] > 0;
        let deks = match &response {
            Response::Reply(Ok(Reply::Sealing(_) | Reply::Opening(_))) => 1,
            Response::Replies(replies) => replies.iter().filter(|reply| reply.is_ok()).count(),
            _ => 0,
        };
        assert_eq!(usize::from(body[0]), deks);
        assert_eq!(body.windows(KEY_BYTES).any(|window| window == DEK), has_dek);
        assert!(!read.windows(KEY_BYTES).any(|window| window == DEK));
        assert_eq!(encode_response(response)[..FRONT_BYTES], [&[RESPONSE][..], &length(&body)].concat());
        let Ok(response) = decode_response(&mut body.clone()) else { panic!("a response") };
        assert_eq!(encode_response(response)[FRONT_BYTES..], body);
    }
}

#[test]
fn what_is_cut_off_or_longer_is_refused() {
    for body in call_bodies() {
        for end in 0..body.len() {
            assert_eq!(decode_command(&body[..end]), Err(Malformed), "{end} of {}", body.len());
        }
        assert_eq!(decode_command(&[&body[..], &[0]].concat()), Err(Malformed));
    }
    for body in answer_bodies() {
        for end in 0..body.len() {
            assert!(decode_response(&mut body[..end].to_vec()).is_err(), "{end} of {}", body.len());
            check_answer(&body[..end]);
        }
        assert!(decode_response(&mut [&body[..], &[0]].concat()).is_err());
    }
}

#[test]
fn a_corrupted_byte_is_refused_or_means_something_else() {
    for (body, check) in call_bodies()
        .into_iter()
        .map(|body| (body, check_call as fn(&[u8])))
        .chain(answer_bodies().into_iter().map(|body| (body, check_answer as fn(&[u8]))))
    {
        for at in 0..body.len() {
            for byte in 0..=u8::MAX {
                let mut corrupted = body.clone();
                corrupted[at] = byte;
                check(&corrupted);
            }
        }
    }
}

#[test]
fn an_answer_has_as_many_data_keys_as_its_kind_says() {
    for body in answer_bodies() {
        for count in 0..=u8::MAX {
            // Also with the bytes that the count promises.
            let public = &body[1 + usize::from(body[0]) * KEY_BYTES..];
            let promised = [&[count][..], &vec![0xd5; usize::from(count) * KEY_BYTES], public].concat();
            let bare = [&[count], &body[1..]].concat();
            assert_eq!(decode_response(&mut promised.clone()).is_ok(), count == body[0], "{count}");
            assert_eq!(decode_response(&mut bare.clone()).is_ok(), count == body[0], "{count}");
        }
    }
}

#[test]
fn a_length_that_lies_takes_no_memory() {
    // Request::OpeningKey of a key id of 2^63 bytes, and of one that ends before.
    for length in [&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f][..], &[0xff, 0xff, 0x7f], &[4]] {
        assert_eq!(decode_command(&[&[0, 2, 0], length, b"loc"].concat()), Err(Malformed));
    }
    assert_eq!(decode_command(&[0xff; 64]), Err(Malformed));
}

#[test]
fn keys_and_contexts_are_checked_on_the_way_in() {
    let terms = Terms { fresh_for: Duration::ZERO, stale_for: Duration::ZERO, calls: Calls::Ahead, is_ahead: false };
    let ask = |wrapped| {
        let request = Request::OpeningKey { wrapped, context: context(), commitment: None, terms };
        decode_command(&body(&encode_command(&Command::Ask { request, settings: 0, resolution: None }), LENGTH_BYTES))
    };
    assert!(ask(wrapped(184)).is_ok());
    for key_id in ["", "local:dev", "nonsense", &"x".repeat(100_000)] {
        assert_eq!(ask(WrappedKey { key_id: key_id.into(), ..wrapped(1) }), Err(Malformed));
    }
    assert_eq!(ask(WrappedKey { provider: Provider::Local, ..wrapped(1) }), Err(Malformed));
    // A context of 66,000 bytes, each pair of which is as it should be.
    let mut encoded = vec![0, 2];
    for key in [b'a', b'b'] {
        encoded.extend([0, 1, key, 0x80, 0xe2]);
        encoded.extend([b'x'; 0x80e2]);
    }
    assert!(EncryptionContext::try_from(encoded.clone()).is_err());
    encoded.drain(7..7 + 1_000);
    encoded[5..7].copy_from_slice(&(0x80e2_u16 - 1_000).to_be_bytes());
    assert!(EncryptionContext::try_from(encoded).is_ok());
}

#[test]
fn the_largest_call_fits() {
    let value = "x".repeat(65_535 - 2 - 2 - 1 - 2);
    let context = EncryptionContext::from_pairs(&BTreeMap::from([("k".into(), value)])).unwrap();
    assert_eq!(context.as_bytes().len(), 65_535);
    let (wrapped, to) = (wrapped(65_535), KeyId::parse(&longest_key_id(0)).unwrap());
    let command =
        Command::Ask { request: Request::Rewrap { wrapped, context, to }, settings: u64::MAX, resolution: None };
    let bytes = encode_command(&command);
    assert!(bytes.len() - LENGTH_BYTES <= MAX_COMMAND_BYTES, "{}", bytes.len());
    assert_eq!(decode_command(&bytes[LENGTH_BYTES..]), Ok(command));
}

#[test]
fn the_largest_answer_fits() {
    // Statistics of as many keys as are counted, each of them at its longest, each count at its highest.
    let statistics = Statistics::new();
    for number in 0..2_000 {
        for operation in [Operation::GenerateDataKey, Operation::Decrypt, Operation::ReEncrypt] {
            statistics.served_stale(operation, &longest_key_id(number));
        }
    }
    let mut snapshot = statistics.snapshot();
    assert!((256..300).contains(&snapshot.rows.len()));
    for CallStatistics { counts, .. } in &mut snapshot.rows {
        *counts = CallCounts {
            calls: u64::MAX,
            cancelled: u64::MAX,
            not_tried: u64::MAX,
            retries: u64::MAX,
            throttled_attempts: u64::MAX,
            stale_serves: u64::MAX,
            latency_sum: Duration::MAX,
            latency_max: Duration::MAX,
            latency_buckets: [u64::MAX; _],
            ..CallCounts::default()
        };
    }
    let expected = snapshot.clone();
    let bytes = encode_response(Response::Statistics(snapshot));
    assert!(bytes.len() <= MAX_RESPONSE_BYTES, "{}", bytes.len());
    match decode_response(&mut bytes[FRONT_BYTES..].to_vec()) {
        Ok(Response::Statistics(statistics)) => assert_eq!(statistics, expected),
        _ => panic!("statistics"),
    }
}

/// The longest key id that there can be: an alias ARN, with a number in it.
fn longest_key_id(number: u32) -> String {
    let alias = format!("alias/{number:0250}");
    let arn = format!("arn:aws{}:kms:{}:111122223333:{alias}", "x".repeat(60), "r".repeat(63));
    assert!(KeyArn::parse(&arn).is_some() && KeyArn::parse(&format!("{arn}x")).is_none());
    arn
}

#[test]
fn the_fingerprint_tells_settings_apart() {
    let aws = envelope_kms::aws::Settings {
        region: None,
        endpoint_url: None,
        profile: None,
        timeout: Duration::from_secs(10),
        max_calls_per_second: None,
        max_attempts: 3,
        failover_regions: vec![],
    };
    let settings = Settings { aws: aws.clone(), local_keyring: None };
    assert_eq!(fingerprint(&settings), fingerprint(&settings.clone()));
    for other in [
        Settings { local_keyring: Some("keys.json".into()), ..settings.clone() },
        Settings {
            aws: envelope_kms::aws::Settings { region: Some("us-west-2".into()), ..aws.clone() },
            ..settings.clone()
        },
        Settings { aws: envelope_kms::aws::Settings { timeout: Duration::from_secs(11), ..aws }, ..settings.clone() },
    ] {
        assert_ne!(fingerprint(&other), fingerprint(&settings));
    }
}
