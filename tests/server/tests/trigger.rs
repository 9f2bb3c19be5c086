//! env_encrypt_trigger: COPY, what reaches the disk, DDL and writers in other sessions, encodings, KMS.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::thread;

use testkit::{Client, Fault, Fixture, Rule, Session, wait_until};

testkit::shared_fixture!(Fixture::local());

/// A table with a trigger that moves `secret` to `secret_enc`, bound to the id, and encrypts `blob` in place.
fn make_table(client: &mut Client, table: &str, key_id: &str) {
    client.run(&format!(
        "CREATE TABLE {table} (id int PRIMARY KEY, secret text, secret_enc bytea, blob bytea, n int DEFAULT 0);
         CREATE TRIGGER {table}_encrypt BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(
             '{{\"source\": \"secret\", \"target\": \"secret_enc\", \"key_id\": \"{key_id}\", \"aad\": \"{table}:{{id}}\"}}',
             '{{\"source\": \"blob\", \"target\": \"blob\", \"key_id\": \"{key_id}\"}}')"
    ));
}

/// How many rows have no plaintext, and a value that opens to the given expression.
fn rows_that_open_to(client: &mut Client, table: &str, expression: &str) -> i64 {
    let query = format!(
        "SELECT count(*) FROM {table}
         WHERE secret IS NULL AND env_decrypt(secret_enc, '{table}:' || id) = {expression}"
    );
    client.one(&query, &[])
}

#[test]
fn copy_in_text_and_binary_form() {
    const ROWS: i32 = 2_000;
    let mut client = fixture().connect();
    make_table(&mut client, "copied", "local:dev");
    let mut text = client.copy_in("COPY copied (id, secret, blob) FROM STDIN").expect("COPY begins");
    for id in 0..ROWS {
        writeln!(text, "{id}\tsecret {id}\t\\\\xd8ff").expect("the server takes it");
    }
    assert_eq!(text.finish().expect("COPY ends"), ROWS as u64);
    let mut binary = client.copy_in("COPY copied (id, secret) FROM STDIN (FORMAT binary)").expect("COPY begins");
    let mut bytes = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    for id in ROWS..2 * ROWS {
        let secret = format!("secret {id}");
        bytes.extend(2_i16.to_be_bytes());
        bytes.extend(4_i32.to_be_bytes());
        bytes.extend(id.to_be_bytes());
        bytes.extend(i32::try_from(secret.len()).expect("a short text").to_be_bytes());
        bytes.extend(secret.as_bytes());
    }
    bytes.extend((-1_i16).to_be_bytes());
    binary.write_all(&bytes).expect("the server takes it");
    assert_eq!(binary.finish().expect("COPY ends"), ROWS as u64);
    assert_eq!(rows_that_open_to(&mut client, "copied", "'secret ' || id"), 2 * i64::from(ROWS));
    let blobs = "SELECT count(*) FROM copied WHERE env_decrypt_bytea(blob) = '\\xd8ff'";
    assert_eq!(client.one::<i64>(blobs, &[]), i64::from(ROWS));

    // What COPY brings out goes in again as it is.
    let mut out = Vec::new();
    client.copy_out("COPY copied TO STDOUT").expect("COPY begins").read_to_end(&mut out).expect("the server sends it");
    client.run("CREATE TEMP TABLE before AS SELECT * FROM copied; TRUNCATE copied");
    let mut again = client.copy_in("COPY copied FROM STDIN").expect("COPY begins");
    again.write_all(&out).expect("the server takes it");
    again.finish().expect("COPY ends");
    let same = "SELECT count(*) FROM copied JOIN before USING (id) WHERE copied.secret_enc = before.secret_enc
                AND copied.blob IS NOT DISTINCT FROM before.blob";
    assert_eq!(client.one::<i64>(same, &[]), 2 * i64::from(ROWS));
}

/// The files below a directory that contain a text.
fn files_with(directory: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("the directory can be read") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        // A temporary file may be gone by now.
        } else if String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).contains(text) {
            found.push(path);
        }
    }
    found
}

#[test]
fn plaintext_reaches_no_file_of_the_server() {
    let fixture = fixture();
    let mut client = fixture.connect();
    make_table(&mut client, "on_disk", "local:dev");
    client.run(
        "INSERT INTO on_disk (id, secret, blob) VALUES (1, 'marker-insert', 'marker-blob');
         UPDATE on_disk SET secret = 'marker-update', blob = 'marker-blob';
         INSERT INTO on_disk (id, secret) VALUES (1, 'marker-upsert') ON CONFLICT (id)
             DO UPDATE SET secret_enc = EXCLUDED.secret_enc",
    );
    let mut copy = client.copy_in("COPY on_disk (id, secret) FROM STDIN").expect("COPY begins");
    copy.write_all(b"2\tmarker-copy\n").expect("the server takes it");
    copy.finish().expect("COPY ends");
    let long = "marker-long ".repeat(2_000);
    client
        .execute("INSERT INTO on_disk (id, secret, blob) VALUES (3, $1, $2)", &[&long, &long.as_bytes()])
        .expect("it works");
    client.run("CHECKPOINT");
    let directory = fixture.cluster.data_directory();
    assert_eq!(files_with(&directory, "marker-"), Vec::<PathBuf>::new());
    // It would be found.
    client.run("CREATE TABLE in_clear (secret text); INSERT INTO in_clear VALUES ('marker-in-clear'); CHECKPOINT");
    assert!(files_with(&directory, "marker-").len() >= 2, "a plain column is in the table and in the WAL");
}

#[test]
fn a_column_that_another_session_renames_is_missed_at_once() {
    let fixture = fixture();
    let (mut writer, mut other) = (fixture.connect(), fixture.connect());
    make_table(&mut writer, "renamed", "local:dev");
    writer.run("INSERT INTO renamed (id, secret) VALUES (1, 'first')");
    other.run("ALTER TABLE renamed RENAME secret TO hidden");
    writer.fail("INSERT INTO renamed (id, hidden) VALUES (2, 'second')", &[]).with("42703").says("\"secret\"");
    // Also in the middle of a transaction that has fired the trigger before.
    other.run("ALTER TABLE renamed RENAME hidden TO secret");
    writer.run("INSERT INTO renamed (id, secret) VALUES (2, 'second')");
    other.run("ALTER TABLE renamed ADD hidden text");
    other.run("ALTER TABLE renamed DROP secret");
    writer.fail("INSERT INTO renamed (id, hidden) VALUES (3, 'third')", &[]).with("42703");
    other.run("ALTER TABLE renamed RENAME hidden TO secret");
    writer.run("INSERT INTO renamed (id, secret) VALUES (3, 'third')");
    // The trigger itself changes.
    other.run(
        "CREATE OR REPLACE TRIGGER renamed_encrypt BEFORE INSERT OR UPDATE ON renamed FOR EACH ROW
         EXECUTE FUNCTION env_encrypt_trigger('{\"source\": \"secret\", \"target\": \"blob\", \"key_id\": \"local:dev\"}')",
    );
    writer.run("INSERT INTO renamed (id, secret) VALUES (4, 'fourth')");
    assert_eq!(writer.one::<String>("SELECT env_decrypt(blob) FROM renamed WHERE id = 4", &[]), "fourth");
    assert_eq!(writer.one::<i64>("SELECT count(*) FROM renamed WHERE secret IS NOT NULL", &[]), 0);
}

#[test]
fn an_update_that_waited_for_another_keeps_the_new_value() {
    let fixture = fixture();
    let (mut first, mut second) = (fixture.connect(), fixture.connect());
    make_table(&mut first, "waited", "local:dev");
    first.run("INSERT INTO waited (id, secret) VALUES (1, 'old')");
    first.run("BEGIN; UPDATE waited SET secret = 'new'");
    let pid = second.backend();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| second.run("UPDATE waited SET n = n + 1"));
        wait_until("the second session waits for the first", || {
            first.one("SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $1 AND NOT granted)", &[&pid])
        });
        first.run("COMMIT");
        waiting.join().expect("the update succeeds");
    });
    assert_eq!(rows_that_open_to(&mut first, "waited", "'new'"), 1);
    assert_eq!(first.one::<i32>("SELECT n FROM waited", &[]), 1);
}

#[test]
fn sessions_that_write_the_same_rows_lose_nothing() {
    const SESSIONS: i32 = 4;
    const ROUNDS: i32 = 100;
    const ROWS: i32 = 5;
    let fixture = fixture();
    let mut client = fixture.connect();
    make_table(&mut client, "contested", "local:dev");
    thread::scope(|scope| {
        for session in 0..SESSIONS {
            let mut client = fixture.connect();
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let (id, secret) = ((session + round) % ROWS, format!("{session}/{round}"));
                    let statement = match round % 3 {
                        0 => "UPDATE contested SET secret = $2, blob = convert_to($2, 'UTF8'), n = n + 1 WHERE id = $1",
                        1 => "UPDATE contested SET n = n + 1 WHERE id = $1 AND $2 <> ''",
                        _ => "INSERT INTO contested (id, secret, blob, n) VALUES ($1, $2, convert_to($2, 'UTF8'), 1)
                              ON CONFLICT (id) DO UPDATE SET secret_enc = EXCLUDED.secret_enc, blob = EXCLUDED.blob,
                                  n = contested.n + 1",
                    };
                    // A row that is not there yet is made.
                    if client.execute(statement, &[&id, &secret]).expect("the statement succeeds") == 0 {
                        let insert = "INSERT INTO contested (id, secret, blob, n)
                                      VALUES ($1, $2, convert_to($2, 'UTF8'), 1) ON CONFLICT (id) DO UPDATE SET n = contested.n + 1";
                        client.execute(insert, &[&id, &secret]).expect("the statement succeeds");
                    }
                }
            });
        }
    });
    assert_eq!(client.one::<i64>("SELECT sum(n) FROM contested", &[]), i64::from(SESSIONS * ROUNDS));
    // Both columns of a row are of the same write.
    let same = rows_that_open_to(&mut client, "contested", "convert_from(env_decrypt_bytea(blob), 'UTF8')");
    assert_eq!(same, i64::from(ROWS));
}

/// An action that leaves the source out is told from one that sets it to null only if it sets the target to itself.
#[test]
fn merge_has_one_set_list_for_all_its_actions() {
    let mut client = fixture().connect();
    if client.one::<i32>("SELECT current_setting('server_version_num')::int", &[]) < 150_000 {
        return;
    }
    make_table(&mut client, "merged", "local:dev");
    client.run("INSERT INTO merged (id, secret) VALUES (1, 'one'), (2, 'two')");
    let merge = |otherwise: &str| {
        format!(
            "MERGE INTO merged AS t USING (VALUES (1, 'new'), (2, NULL), (3, 'three')) AS s (id, secret) ON t.id = s.id
             WHEN MATCHED AND s.secret IS NOT NULL THEN UPDATE SET secret = s.secret
             WHEN MATCHED THEN UPDATE SET {otherwise}
             WHEN NOT MATCHED THEN INSERT (id, secret) VALUES (s.id, s.secret)"
        )
    };
    client.fail(&merge("n = 1"), &[]).with("23000").says("set the target to itself");
    client.run(&merge("n = 1, secret_enc = t.secret_enc"));
    let expected = "CASE id WHEN 1 THEN 'new' WHEN 2 THEN 'two' WHEN 3 THEN 'three' END";
    assert_eq!(rows_that_open_to(&mut client, "merged", expected), 3);
}

#[test]
fn names_and_texts_in_the_database_encoding() {
    let fixture = fixture();
    fixture.cluster.sql("CREATE DATABASE latin1 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    let mut client = fixture.cluster.connect("postgres", "latin1");
    client.run(
        "CREATE EXTENSION envelope_pg;
         CREATE TABLE straße (größe text PRIMARY KEY, wörter text, verschlüsselt bytea);
         CREATE TRIGGER verschlüsseln BEFORE INSERT OR UPDATE ON straße FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(
             '{\"source\": \"wörter\", \"target\": \"verschlüsselt\", \"key_id\": \"local:dev\", \"aad\": \"straße:{größe}\",
               \"encryption_context\": {\"ort\": \"Köln\"}}');
         INSERT INTO straße VALUES ('ü', 'déjà vu')",
    );
    let opened = "SELECT env_decrypt(verschlüsselt, 'straße:' || größe) || (wörter IS NULL) FROM straße";
    assert_eq!(client.one::<String>(opened, &[]), "déjà vutrue");
    // Names in errors, too.
    client.fail("UPDATE straße SET verschlüsselt = 'x'", &[]).with("22P03").says("column \"verschlüsselt\" is set");
    client.run("ALTER TABLE straße RENAME wörter TO worte");
    client.fail("INSERT INTO straße (größe) VALUES ('x')", &[]).with("42703").says("column \"wörter\" does not exist");
    client.run("ALTER TABLE straße RENAME worte TO wörter");
    // The same value elsewhere: text, aad and context are UTF-8 in it.
    let value: Vec<u8> = client.one("SELECT verschlüsselt FROM straße", &[]);
    let mut utf8 = fixture.connect();
    assert_eq!(utf8.one::<String>("SELECT env_decrypt($1, 'straße:ü')", &[&value]), "déjà vu");
    assert_eq!(utf8.one::<String>("SELECT env_encryption_context($1) ->> 'ort'", &[&value]), "Köln");
}

#[test]
fn many_rows_cost_one_kms_call_and_an_outage_stores_nothing() {
    let fixture = Fixture::kms();
    let mut client = fixture.connect();
    make_table(&mut client, "kms", &fixture.key_id);
    client
        .run("INSERT INTO kms (id, secret, blob) SELECT i, 'secret ' || i, '\\xd8' FROM generate_series(1, 1000) AS i");
    client.run("UPDATE kms SET secret = 'secret ' || id; UPDATE kms SET n = 1");
    assert_eq!(rows_that_open_to(&mut client, "kms", "'secret ' || id"), 1_000);
    assert_eq!((fixture.proxy.calls("GenerateDataKey"), fixture.proxy.total_calls()), (1, 1));

    fixture.proxy.set(Rule::every(Fault::kms_error(400, "AccessDeniedException")));
    let mut another = fixture.connect();
    another.fail("INSERT INTO kms (id, secret) VALUES (1001, 'lost')", &[]).with("42501");
    another.fail("UPDATE kms SET blob = 'lost' WHERE id = 1", &[]).with("42501");
    // What needs no key is written all the same.
    another.run("UPDATE kms SET n = 2; DELETE FROM kms WHERE id = 2");
    fixture.proxy.clear();
    assert_eq!(rows_that_open_to(&mut another, "kms", "'secret ' || id"), 999);
    assert_eq!(another.one::<i64>("SELECT count(*) FROM kms WHERE n = 2", &[]), 999);
}
