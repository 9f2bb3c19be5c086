//! The AWS KMS provider against an emulator: key ids, encryption contexts, answers that must not be believed, errors.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::emulator::{ACCOUNT, REGION};
use testkit::http::REQUEST_ID;
use testkit::{Client, Cluster, Emulator, Failure, Fault, Fixture, Nonsense, Rule, Session, process, wait_until};

testkit::shared_fixture!(Fixture::kms());

/// The wrapped data key of a value, in base64.
fn wrapped_dek(client: &mut Client, value: &[u8]) -> String {
    let text: String = client.one("SELECT encode((env_inspect($1)).wrapped_dek, 'base64')", &[&value]);
    text.replace('\n', "")
}

#[test]
fn every_form_of_key_id_resolves_to_the_key_arn() {
    let fixture = fixture();
    let emulator = Emulator::shared();
    let (key, multi_region) = (emulator.create_key(), emulator.create_multi_region_key());
    let alias_arn = emulator.create_alias("alias/every/form_1", &key);
    for (named, resolved) in [
        (key.arn.as_str(), &key.arn),
        (&key.id, &key.arn),
        ("alias/every/form_1", &key.arn),
        (&alias_arn, &key.arn),
        (&multi_region.arn, &multi_region.arn),
        (&multi_region.id, &multi_region.arn),
    ] {
        let value = fixture.connect().encrypt("a text", named);
        let mut reader = fixture.connect();
        assert_eq!(&reader.one::<String>("SELECT env_key_id($1)", &[&value]), resolved, "{named}");
        assert_eq!(reader.one::<String>("SELECT (env_inspect($1)).provider", &[&value]), "aws-kms");
        assert_eq!(reader.decrypt(&value), "a text", "{named}");
    }
}

#[test]
fn a_value_stays_with_its_key_when_the_alias_moves() {
    let fixture = fixture();
    let emulator = Emulator::shared();
    let (old, new) = (emulator.create_key(), emulator.create_key());
    emulator.create_alias("alias/moving", &old);
    let mut client = fixture.connect();
    let before = client.encrypt("before", "alias/moving");
    emulator.update_alias("alias/moving", &new);
    client.run("SELECT env_cache_flush()");
    let after = client.encrypt("after", "alias/moving");
    assert_eq!(client.one::<String>("SELECT env_key_id($1)", &[&before]), old.arn);
    assert_eq!(client.one::<String>("SELECT env_key_id($1)", &[&after]), new.arn);
    assert_eq!(fixture.connect().decrypt(&before), "before");
    assert_eq!(fixture.connect().decrypt(&after), "after");
}

#[test]
fn kms_gets_the_encryption_context_and_the_mark_of_the_extension() {
    let fixture = fixture();
    let emulator = Emulator::shared();
    let mut client = fixture.connect();
    for context in [json!({}), json!({ "table": "patients", "column": "ssn" }), json!({ "größe": "日本", "empty": "" })]
    {
        let query = "SELECT env_encrypt('a text'::text, $1, $2::text::jsonb)";
        let value: Vec<u8> = client.one(query, &[&fixture.key_id, &context.to_string()]);
        let wrapped = wrapped_dek(&mut client, &value);
        let mut sent = context.clone();
        sent["envelope_pg"] = "v1".into();
        assert_eq!(emulator.decrypt(&wrapped, &sent).expect("KMS got exactly this context"), fixture.key_id);
        emulator.decrypt(&wrapped, &context).expect_err("the mark was sent too");

        let stored: String = client.one("SELECT env_encryption_context($1)::text", &[&value]);
        assert_eq!(serde_json::from_str::<Value>(&stored).expect("it is JSON"), context);
        assert_eq!(fixture.connect().decrypt(&value), "a text", "Decrypt sends the same");
    }
    // No context and the empty one are the same.
    let value = client.encrypt("a text", &fixture.key_id);
    emulator.decrypt(&wrapped_dek(&mut client, &value), &json!({ "envelope_pg": "v1" })).expect("nothing but the mark");
}

#[test]
fn answers_that_no_kms_gives_are_not_believed() {
    let fixture = fixture();
    let value = fixture.connect().encrypt("a text", &fixture.key_id);
    for (nonsense, generates, decrypts) in [
        (Nonsense::Garbage, "58000", "58000"),
        (Nonsense::WrongKeyId, "58000", "58000"),
        (Nonsense::ShortPlaintext, "58000", "58000"),
        (Nonsense::NoPlaintext, "58000", "58000"),
        (Nonsense::EmptyBlob, "58000", ""),
        // A data key of the right length that is another one: the commitment tells.
        (Nonsense::OtherPlaintext, "", "22000"),
    ] {
        fixture.proxy.set(Fault::Nonsense(nonsense));
        let mut client = fixture.connect();
        if !generates.is_empty() {
            let failure = client.fail_to_encrypt(&fixture.key_id).with(generates);
            assert!(!failure.hint.is_empty(), "{nonsense:?}: {failure:?}");
        }
        // Of its own, as the circuit breaker of the first may be open now.
        let mut reader = fixture.connect();
        match decrypts {
            // Decrypt answers without a blob.
            "" => assert_eq!(reader.decrypt(&value), "a text"),
            _ => drop(reader.fail_to_decrypt(&value).with(decrypts)),
        }
        fixture.proxy.clear();
        for mut session in [reader, client] {
            assert_eq!(session.decrypt_when_back(&value), "a text", "{nonsense:?}: nothing of the answer was kept");
        }
        let written = fixture.connect().encrypt("another text", &fixture.key_id);
        assert_eq!(fixture.connect().decrypt(&written), "another text", "{nonsense:?}");
    }
}

#[test]
fn a_data_key_of_another_key_is_refused_unless_an_alias_was_named() {
    let fixture = fixture();
    let key_id = fixture.key_id.rsplit('/').next().expect("an ARN ends with the key's uuid").to_owned();
    fixture.proxy.set(Fault::Nonsense(Nonsense::WrongKeyId));
    for named in [fixture.key_id.as_str(), &key_id] {
        fixture.connect().fail_to_encrypt(named).with("58000");
    }
}

#[test]
fn error_codes_of_kms_keep_their_class() {
    let fixture = fixture();
    let value = fixture.connect().encrypt("a text", &fixture.key_id);
    // status, code, SQLSTATE, whether it is worth a retry
    for (status, code, sqlstate, retried) in [
        (400, "AccessDeniedException", "42501", false),
        (400, "DisabledException", "55000", false),
        (400, "KMSInvalidStateException", "58000", true),
        (400, "NotFoundException", "42704", false),
        (400, "ThrottlingException", "53400", true),
        (429, "TooManyRequestsException", "53400", true),
        (500, "KMSInternalException", "58000", true),
        (500, "DependencyTimeoutException", "58000", true),
        (503, "ServiceUnavailable", "58000", true),
    ] {
        fixture.proxy.set(Fault::kms_error(status, code));
        fixture.proxy.reset_counts();
        let check = |operation: &str, failure: Failure| {
            let failure = failure.with(sqlstate);
            for fact in [fixture.key_id.as_str(), code, REQUEST_ID] {
                assert!(failure.detail.contains(fact), "{operation}, {code}: {fact} is not in {failure:?}");
            }
            assert!(!failure.hint.is_empty() && failure.message.len() < 100, "{code}: {failure:?}");
            let calls = fixture.proxy.calls(operation);
            assert!(if retried { calls > 1 } else { calls == 1 }, "{operation}, {code}: {calls} calls");
            let attempts = if retried { format!("{calls} attempts") } else { "1 attempt;".into() };
            assert!(failure.detail.contains(&attempts), "{attempts} is not in {failure:?}");
        };
        // Both at once, because the waits between retries add up.
        thread::scope(|scope| {
            let (mut reader, value) = (fixture.connect(), &value);
            let decrypt = scope.spawn(move || reader.fail_to_decrypt(value));
            check("GenerateDataKey", fixture.connect().fail_to_encrypt(&fixture.key_id));
            check("Decrypt", decrypt.join().expect("the statement's thread does not panic"));
        });
    }
}

#[test]
fn transient_faults_are_retried_and_the_session_goes_on() {
    let fixture = fixture();
    for fault in
        [Fault::kms_error(400, "ThrottlingException"), Fault::kms_error(500, "KMSInternalException"), Fault::Reset]
    {
        fixture.proxy.set(Rule::every(fault.clone()).times(1));
        fixture.proxy.reset_counts();
        let value = fixture.connect().encrypt("a text", &fixture.key_id);
        assert_eq!(fixture.proxy.calls("GenerateDataKey"), 2, "{fault:?}");
        fixture.proxy.set(Rule::every(fault.clone()).times(1));
        assert_eq!(fixture.connect().decrypt(&value), "a text", "{fault:?}");
        assert_eq!(fixture.proxy.calls("Decrypt"), 2, "{fault:?}");
    }
}

#[test]
fn an_unreachable_kms_is_an_error_and_no_more() {
    let fixture = fixture();
    let value = fixture.connect().encrypt("a text", &fixture.key_id);
    let check = |what: &str| {
        // Both at once, because the waits between retries add up; each in a session whose circuit breakers are closed.
        let (mut writer, mut reader) = (fixture.connect(), fixture.connect());
        thread::scope(|scope| {
            let decrypt = scope.spawn(|| reader.fail_to_decrypt(&value).with("58000"));
            let failure = writer.fail_to_encrypt(&fixture.key_id).with("58000").says(&fixture.key_id);
            assert!(!failure.hint.is_empty(), "{failure:?}");
            decrypt.join().expect("the statement's thread does not panic");
        });
        fixture.proxy.clear();
        for mut session in [writer, reader] {
            assert_eq!(session.decrypt_when_back(&value), "a text", "after {what}");
        }
    };
    for fault in [Fault::Reset, Fault::ResetInTheMiddle, Fault::HalfResponse] {
        fixture.proxy.set(fault.clone());
        check(&format!("{fault:?}"));
    }
    fixture.proxy.refuse();
    check("a refused connection");
}

#[test]
fn a_call_ends_with_its_time_limit() {
    let fixture = fixture();
    let _setting = fixture.cluster.set_for_now("envelope_pg.kms_timeout", "400ms");
    for fault in [Fault::Hang, Fault::Delay(Duration::from_secs(3))] {
        fixture.proxy.set(fault.clone());
        let mut client = fixture.connect();
        let started = Instant::now();
        client.fail_to_encrypt(&fixture.key_id).with("58000").says(&fixture.key_id);
        let elapsed = started.elapsed();
        assert!(elapsed >= Duration::from_millis(400) && elapsed < Duration::from_secs(2), "{fault:?}: {elapsed:?}");
        fixture.proxy.clear();
        wait_until("the session goes on", || client.try_encrypt("a text", &fixture.key_id).is_ok());
    }
}

#[test]
fn keys_that_do_not_exist_and_names_that_are_none() {
    let fixture = fixture();
    let mut client = fixture.connect();
    let no_uuid = "00000000-0000-4000-8000-000000000000";
    for missing in [
        no_uuid.to_owned(),
        format!("arn:aws:kms:{REGION}:{ACCOUNT}:key/{no_uuid}"),
        "alias/nowhere".to_owned(),
        format!("arn:aws:kms:{REGION}:{ACCOUNT}:alias/nowhere"),
    ] {
        client.fail_to_encrypt(&missing).with("42704").says(&missing);
    }
    fixture.proxy.reset_counts();
    let wrong = ["", " ", "alias/", "key", "arn:aws:s3:::bucket", "arn:aws:kms:us-west-2:1:key/x", "local:", "mrk-"];
    for name in wrong.iter().map(|name| (*name).to_owned()).chain([format!(" {no_uuid}"), format!("{no_uuid} ")]) {
        // What is no key id may be a plaintext.
        let failure = client.fail_to_encrypt(&name).with("22023");
        let said = format!("{} {}", failure.message, failure.detail);
        assert!(name.len() <= "alias/".len() || !said.contains(&name), "{failure:?}");
    }
    assert_eq!(fixture.proxy.total_calls(), 0, "a name that is none needs no network");
}

#[test]
fn a_region_is_needed_only_where_the_key_names_none() {
    let fixture = fixture();
    let _setting = fixture.cluster.set_for_now("envelope_pg.kms_region", "");
    let mut client = fixture.connect();
    let value = client.encrypt("a text", &fixture.key_id);
    assert_eq!(fixture.connect().decrypt(&value), "a text");
    client.fail_to_encrypt("alias/anything").with("55000").says("envelope_pg.kms_region");
}

#[test]
fn missing_credentials_are_said_to_be_missing() {
    let fixture = Fixture::kms_with(
        Cluster::builder().without_environment("AWS_ACCESS_KEY_ID").without_environment("AWS_SECRET_ACCESS_KEY"),
    );
    let mut client = fixture.connect();
    let failure = client.fail_to_encrypt(&fixture.key_id).with("58000").says("credentials");
    assert!(!failure.hint.is_empty(), "{failure:?}");
    assert_eq!(fixture.proxy.total_calls(), 0);

    // The same server, with credentials in a profile that the setting names.
    let directory = fixture.cluster.directory().join(".aws");
    fs::create_dir(&directory).expect("the home directory of the server is new");
    let profile = "[app]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = nobody\n";
    fs::write(directory.join("credentials"), profile).expect("the file can be written");
    process::give_to_server(&directory.join("credentials"));
    process::give_to_server(&directory);
    client.fail_to_encrypt(&fixture.key_id).with("58000").says("credentials");
    fixture.cluster.set("envelope_pg.kms_profile", "app");
    let value = client.encrypt("a text", &fixture.key_id);
    assert_eq!(fixture.connect().decrypt(&value), "a text", "the session that failed goes on with new settings");
}

/// The data key that it gives opens what was sealed, as long as it is in memory; nobody will ever have it again.
#[test]
fn nothing_is_cleared_for_a_data_key_that_kms_does_not_open() {
    let fixture = fixture();
    let mut client = fixture.connect();
    client.run("CREATE TABLE adopted (id int PRIMARY KEY, plain text, value bytea)");
    client.run("INSERT INTO adopted SELECT i, 'text ' || i FROM generate_series(1, 10) AS i");
    let adopt = |clear: bool| {
        format!("CALL env_encrypt_column('adopted', 'plain', 'value', '{}', clear_source => {clear})", fixture.key_id)
    };
    let left = |client: &mut Client| client.one::<i64>("SELECT count(plain) FROM adopted", &[]);
    fixture.proxy.set(Rule::every(Fault::Nonsense(Nonsense::OtherPlaintext)).only("GenerateDataKey"));
    client.fail(&adopt(true), &[]).with("58000").says("does not open");
    assert_eq!(left(&mut client), 10, "in one step");
    // In two steps: the values are there, and open in this session.
    client.run(&adopt(false));
    fixture.proxy.clear();
    assert_eq!(client.one::<i64>("SELECT count(*) FROM adopted WHERE env_opens_to(value, plain)", &[]), 10);
    client.fail(&adopt(true), &[]).with("58000").says("does not open");
    assert_eq!(left(&mut client), 10, "in two steps");
    // A new data key, and all is well: one call to prove it.
    client.run("SELECT env_cache_flush(true)");
    client.run("UPDATE adopted SET value = NULL");
    client.run("SELECT env_rotation_abandon(run_id) FROM env_rotation WHERE state <> 'done'");
    fixture.proxy.reset_counts();
    client.run(&adopt(true));
    assert_eq!(left(&mut client), 0);
    assert_eq!(fixture.proxy.calls("Decrypt"), 1);
    let mut reader = fixture.connect();
    assert_eq!(reader.one::<i64>("SELECT count(env_decrypt(value)) FROM adopted", &[]), 10);
}
