//! Values and index keys that releases have written, under local keys and under KMS, open for ever.
//!
//! A file for each release in `releases/`, written by that release: `scripts/with-kms.sh python3 scripts/release_values.py`.

use std::fs;
use std::path::Path;

use serde_json::Value;
use testkit::{Client, Fault, Fixture, Session};

/// What each release has left.
fn releases() -> Vec<Value> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("releases");
    let files = fs::read_dir(directory).expect("the directory is there").flatten();
    files
        .map(|file| serde_json::from_slice(&fs::read(file.path()).expect("it can be read")).expect("it is JSON"))
        .collect()
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_else(|| panic!("{field} of {} is a text", object["name"]))
}

/// Opens a value as its type and compares.
fn check(client: &mut Client, release: &Value, stored: &Value) {
    let (value, aad) = (text(stored, "value"), stored["aad"].as_str());
    let name = format!("{}, {}", text(release, "release"), text(stored, "name"));
    let mut open = |function: &str, result: &str| -> String {
        let query = format!(
            "SELECT {result} FROM (SELECT CASE WHEN $2::text IS NULL THEN {function}(v) ELSE {function}(v, $2) END AS opened
                FROM decode($1::text, 'hex') AS v) AS s"
        );
        client.one(&query, &[&value, &aad])
    };
    let opens = &stored["opens"];
    if let Some(expected) = opens["text"].as_str() {
        assert_eq!(open("env_decrypt", "opened"), expected, "{name}");
    } else if let Some(expected) = opens["bytea"].as_str() {
        assert_eq!(open("env_decrypt_bytea", "encode(opened, 'hex')"), expected, "{name}");
    } else {
        let opened: Value = serde_json::from_str(&open("env_decrypt_jsonb", "opened::text")).expect("it is JSON");
        assert_eq!(opened, opens["jsonb"], "{name}");
    }
}

#[test]
fn local_values_of_every_release_open() {
    let releases = releases();
    assert!(releases.iter().any(|release| release["tokens"].is_array()));
    for release in releases {
        let fixture = Fixture::local();
        // Written into the file that is there, so that it keeps its owner and its mode.
        fs::write(fixture.keyring(), release["keyring"].to_string()).expect("the key file can be written");
        let mut client = fixture.connect();
        let values = release["local"].as_array().expect("a list");
        assert!(values.len() >= 12);
        values.iter().for_each(|stored| check(&mut client, &release, stored));
        // Index keys: from 0.2.0 on.
        for key in release["index_keys"].as_array().into_iter().flatten() {
            client.run(&format!(
                "INSERT INTO envelope_internal.index_key (name, version, revision, stub)
                     VALUES ('{}', {}, 1, decode('{}', 'hex'))",
                text(key, "name"),
                key["version"],
                text(key, "stub")
            ));
        }
        for token in release["tokens"].as_array().into_iter().flatten() {
            let expression = text(token, "expression");
            assert_eq!(
                client.one::<String>(&format!("SELECT ({expression})::text"), &[]),
                text(token, "token"),
                "{expression}"
            );
        }
    }
}

#[test]
fn kms_values_of_every_release_open() {
    let fixture = Fixture::kms();
    for release in releases() {
        let values = release["kms"].as_array().expect("a list");
        assert!(values.len() >= 9);
        for stored in values {
            let answer = serde_json::json!({ "KeyId": stored["key_id"], "Plaintext": stored["dek"] });
            fixture.proxy.set(Fault::Answer(answer.to_string()));
            let mut client = fixture.connect();
            check(&mut client, &release, stored);
        }
        assert_eq!(fixture.proxy.total_calls(), values.len(), "each session has asked KMS");
        fixture.proxy.reset_counts();
    }
}
