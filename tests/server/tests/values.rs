//! What can be encrypted, and what cannot be opened: sizes, types, encodings, aad, damaged values.

use std::collections::BTreeSet;

use testkit::{Client, Fixture, Session};

testkit::shared_fixture!(Fixture::local());

/// Nothing here changes the server, so the tests need it only for a connection and run at the same time.
fn connect() -> Client {
    fixture().connect()
}

/// A database in another encoding, with the extension, and a session in it.
fn connect_in_encoding(encoding: &str) -> Client {
    let fixture = fixture();
    let name = encoding.to_lowercase();
    fixture
        .cluster
        .sql(&format!("CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"));
    let mut client = fixture.cluster.connect("postgres", &name);
    client.run("CREATE EXTENSION envelope_pg");
    client
}

fn encrypt_with_aad(client: &mut Client, plaintext: &str, aad: &str) -> Vec<u8> {
    client.one("SELECT env_encrypt($1::text, 'local:dev', '{}', $2)", &[&plaintext, &aad])
}

#[test]
fn nulls_empties_and_single_bytes() {
    let mut client = connect();
    for (expression, decrypt) in [
        ("NULL::text", "env_decrypt"),
        ("''::text", "env_decrypt"),
        ("'x'::text", "env_decrypt"),
        ("'é'::text", "env_decrypt"),
        ("NULL::bytea", "env_decrypt_bytea"),
        ("''::bytea", "env_decrypt_bytea"),
        ("'\\x00'::bytea", "env_decrypt_bytea"),
        ("'\\xff'::bytea", "env_decrypt_bytea"),
        ("NULL::jsonb", "env_decrypt_jsonb"),
        ("'null'::jsonb", "env_decrypt_jsonb"),
        ("'{}'::jsonb", "env_decrypt_jsonb"),
        ("'0'::jsonb", "env_decrypt_jsonb"),
    ] {
        let encrypted = format!("env_encrypt({expression}, 'local:dev')");
        let same = format!("SELECT {decrypt}({encrypted}) IS NOT DISTINCT FROM {expression}");
        assert!(client.one::<bool>(&same, &[]), "{expression}");
        let null = format!("SELECT ({encrypted} IS NULL) = ({expression} IS NULL)");
        assert!(client.one::<bool>(&null, &[]), "{expression}");
        let with_aad = format!(
            "SELECT {decrypt}(env_encrypt({expression}, 'local:dev', '{{\"a\": \"b\"}}', 'row 1'), 'row 1') \
             IS NOT DISTINCT FROM {expression}"
        );
        assert!(client.one::<bool>(&with_aad, &[]), "{expression}");
        let generated = format!(
            "SELECT {decrypt}(env_encrypt_generated({expression}, 'local:dev')) IS NOT DISTINCT FROM {expression}"
        );
        assert!(client.one::<bool>(&generated, &[]), "{expression}");
    }
    assert!(client.one::<bool>("SELECT env_decrypt(NULL) IS NULL AND env_decrypt(NULL, 'aad') IS NULL", &[]));
}

#[test]
fn arguments_that_make_no_sense_are_errors_and_never_a_null() {
    let mut client = connect();
    for (call, sqlstate) in [
        ("env_encrypt('x'::text, NULL)", "22004"),
        ("env_encrypt('x'::bytea, NULL)", "22004"),
        ("env_encrypt('{}'::jsonb, NULL)", "22004"),
        ("env_encrypt('x'::text, 'local:dev', NULL)", "22004"),
        ("env_encrypt('x'::text, 'local:dev', NULL, 'aad')", "22004"),
        ("env_encrypt('x'::text, 'local:dev', '{}', NULL)", "22004"),
        ("env_encrypt(NULL::text, NULL)", "22004"),
        ("env_encrypt(NULL::text, 'local:dev', '{}', NULL)", "22004"),
        ("env_encrypt_generated('x'::text, 'local:dev', NULL)", "22004"),
        ("env_decrypt(env_encrypt('x'::text, 'local:dev'), NULL)", "22004"),
        ("env_decrypt_bytea(env_encrypt('x'::bytea, 'local:dev'), NULL)", "22004"),
        ("env_decrypt_jsonb(env_encrypt('{}'::jsonb, 'local:dev'), NULL)", "22004"),
        ("env_encrypt('x'::text, 'local:dev', '[]')", "22023"),
        ("env_encrypt('x'::text, 'local:dev', '\"text\"')", "22023"),
        ("env_encrypt('x'::text, 'local:dev', 'null')", "22023"),
        ("env_encrypt('x'::text, 'local:dev', '{\"a\": 1}')", "22023"),
        ("env_encrypt('x'::text, 'local:dev', '{\"a\": null}')", "22023"),
        ("env_encrypt('x'::text, 'local:dev', '{\"a\": {\"b\": \"c\"}}')", "22023"),
        ("env_encrypt('x'::text, 'local:dev', '{\"envelope_pg\": \"v1\"}')", "22023"),
        ("env_encrypt('x'::text, 'local:dev', jsonb_build_object('a', repeat('x', 70000)))", "22023"),
        ("env_decrypt(env_encrypt('x'::bytea, 'local:dev'))", "42804"),
        ("env_decrypt_bytea(env_encrypt('x'::text, 'local:dev'))", "42804"),
        ("env_decrypt_jsonb(env_encrypt('{}'::text, 'local:dev'))", "42804"),
        ("env_decrypt(env_encrypt('{}'::jsonb, 'local:dev'))", "42804"),
    ] {
        let failure = client.fail(&format!("SELECT {call}"), &[]).with(sqlstate);
        assert!(!failure.hint.is_empty() && failure.message.len() < 120, "{call}: {failure:?}");
    }
}

#[test]
fn a_hundred_megabytes_of_text_and_of_bytea() {
    let mut client = connect();
    // Text that PostgreSQL's own compression makes small, and bytes that it leaves as they are.
    client.run(
        "CREATE TEMP TABLE large (plain text, bytes bytea, value bytea, bytes_value bytea);
         ALTER TABLE large ALTER bytes SET STORAGE EXTERNAL, ALTER value SET STORAGE EXTERNAL,
             ALTER bytes_value SET STORAGE EXTERNAL;
         INSERT INTO large SELECT plain, convert_to(plain, 'UTF8')
             FROM (SELECT repeat(md5('a') || 'ü🙂', 100 * 1024 * 1024 / 38)) AS made (plain);
         UPDATE large SET value = env_encrypt(plain, 'local:dev', '{\"size\": \"large\"}', 'row'),
             bytes_value = env_encrypt(bytes, 'local:dev')",
    );
    assert!(client.one::<bool>("SELECT env_decrypt(value, 'row') = plain FROM large", &[]));
    assert!(client.one::<bool>("SELECT env_decrypt_bytea(bytes_value) = bytes FROM large", &[]));
    assert_eq!(client.one::<String>("SELECT env_key_id(value) FROM large", &[]), "local:dev");
    let sizes = "SELECT (env_inspect(value)).value_bytes = octet_length(value) \
                 AND (env_inspect(value)).ciphertext_bytes = octet_length(plain) FROM large";
    assert!(client.one::<bool>(sizes, &[]));
}

#[test]
fn what_does_not_fit_into_a_value_is_refused() {
    let mut client = connect();
    // Within PostgreSQL's limit of 1 GB by itself, and above it with what goes around it.
    let failure = client.fail("SELECT env_encrypt(repeat('x', 1024 * 1024 * 1024 - 100), 'local:dev')", &[]);
    failure.with("54000").says("1 GB");
    assert_eq!(client.one::<i32>("SELECT 1", &[]), 1);
}

#[test]
fn text_is_the_same_in_every_database_encoding() {
    let mut utf8 = connect();
    let mut latin1 = connect_in_encoding("LATIN1");
    let value = encrypt_with_aad(&mut latin1, "déjà vu ÿ", "Zeile ä");
    let opened: String = utf8.one("SELECT env_decrypt($1, 'Zeile ä')", &[&value]);
    assert_eq!(opened, "déjà vu ÿ");
    let value = encrypt_with_aad(&mut utf8, "déjà vu ÿ", "Zeile ä");
    assert_eq!(latin1.one::<String>("SELECT env_decrypt($1, 'Zeile ä')", &[&value]), "déjà vu ÿ");
    let context: Vec<u8> = latin1.one("SELECT env_encrypt('x'::text, 'local:dev', '{\"größe\": \"ü\"}')", &[]);
    assert_eq!(utf8.one::<String>("SELECT env_encryption_context($1)::text", &[&context]), r#"{"größe": "ü"}"#);
    assert_eq!(latin1.one::<String>("SELECT env_encryption_context($1)::text", &[&context]), r#"{"größe": "ü"}"#);
    assert_eq!(utf8.decrypt(&context), "x");
    let json: Vec<u8> = latin1.one("SELECT env_encrypt('{\"é\": [\"ß\"]}'::jsonb, 'local:dev')", &[]);
    assert_eq!(utf8.one::<String>("SELECT env_decrypt_jsonb($1)::text", &[&json]), r#"{"é": ["ß"]}"#);
    assert_eq!(latin1.one::<String>("SELECT env_decrypt_jsonb($1)::text", &[&json]), r#"{"é": ["ß"]}"#);

    // Characters that LATIN1 does not have: an error that does not show them.
    let value = utf8.encrypt("price: 100 €", "local:dev");
    let failure = latin1.fail_to_decrypt(&value).with("22P05");
    assert!(!failure.text().contains("price") && !failure.text().contains("0x"), "{failure:?}");

    // Conversion works in pieces: characters lie across their borders.
    for start in ["", "x", "xy"] {
        let long =
            "SELECT env_decrypt(env_encrypt($1 || repeat('é', 3000000), 'local:dev')) = $1 || repeat('é', 3000000)";
        assert!(latin1.one::<bool>(long, &[&start]));
    }

    // One other character in a text that is looked through in long steps.
    for before in [0, 31, 32, 255, 256, 4_095, 4_999] {
        let query = "SELECT env_encrypt(repeat('x', $1) || 'é' || repeat('x', 4999 - $1), 'local:dev')";
        let value: Vec<u8> = latin1.one(query, &[&before]);
        let text = format!("{}é{}", "x".repeat(before as usize), "x".repeat(4_999 - before as usize));
        assert!(utf8.decrypt(&value) == text && latin1.decrypt(&value) == text, "behind {before}");
    }
}

#[test]
fn a_database_without_an_encoding_takes_utf8_only() {
    let mut ascii = connect_in_encoding("SQL_ASCII");
    let value = ascii.encrypt("déjà vu 🙂", "local:dev");
    assert_eq!(ascii.decrypt(&value), "déjà vu 🙂");
    assert_eq!(connect().decrypt(&value), "déjà vu 🙂");
    let failure = ascii.fail("SELECT env_encrypt('secret ' || chr(233), 'local:dev')", &[]).with("22021");
    assert!(!failure.text().contains("secret") && !failure.text().contains("0xe9"), "{failure:?}");
}

#[test]
fn jsonb_keeps_every_character_and_number() {
    let mut client = connect();
    let json = r#"{"ключ": ["日本語", "🙂", "\u0001\t\"\\"], "n": 12345678901234567890.123456789, "e": {"": null}}"#;
    let query = "SELECT env_decrypt_jsonb(env_encrypt($1::text::jsonb, 'local:dev')) = $1::text::jsonb";
    assert!(client.one::<bool>(query, &[&json]));
}

#[test]
fn a_value_opens_only_with_its_own_aad() {
    let mut client = connect();
    let value = encrypt_with_aad(&mut client, "a text", "row 1");
    let with_empty = encrypt_with_aad(&mut client, "a text", "");
    let without = client.encrypt("a text", "local:dev");
    let with_aad = "SELECT env_decrypt($1, $2)";
    assert_eq!(client.one::<String>(with_aad, &[&value, &"row 1"]), "a text");
    assert_eq!(client.one::<String>(with_aad, &[&with_empty, &""]), "a text");
    assert!(
        client.one::<bool>("SELECT (env_inspect($1)).has_aad AND NOT (env_inspect($2)).has_aad", &[&value, &without])
    );

    let wrong = vec![
        client.fail(with_aad, &[&value, &"row 2"]),
        client.fail(with_aad, &[&value, &"row 1 "]),
        client.fail(with_aad, &[&value, &""]),
        client.fail(with_aad, &[&with_empty, &"row 1"]),
    ];
    // Whether a value has one is in its header, for everybody to read.
    let not_bound = vec![client.fail(with_aad, &[&without, &"row 1"]), client.fail(with_aad, &[&without, &""])];
    let not_given = vec![client.fail_to_decrypt(&value), client.fail_to_decrypt(&with_empty)];
    for failures in [&wrong, &not_bound, &not_given] {
        for failure in failures {
            assert_eq!(failure, &failures[0], "one error for all, so that none tells more");
            assert_eq!(failure.sqlstate, "22000");
        }
    }
    assert!(wrong[0].message.contains("could not be authenticated"), "{}", wrong[0].message);
}

#[test]
fn a_value_pasted_into_another_row_does_not_open() {
    let mut client = connect();
    client.run(
        "CREATE TEMP TABLE account (id int, secret bytea);
         INSERT INTO account SELECT id, env_encrypt('secret of ' || id, 'local:dev', '{\"table\": \"account\"}',
             'account/' || id) FROM generate_series(1, 3) AS id",
    );
    let read = "SELECT string_agg(env_decrypt(secret, 'account/' || id), ',' ORDER BY id) FROM account";
    assert_eq!(client.one::<String>(read, &[]), "secret of 1,secret of 2,secret of 3");
    client.run("UPDATE account SET secret = (SELECT secret FROM account WHERE id = 1) WHERE id = 2");
    client.fail("SELECT env_decrypt(secret, 'account/' || id) FROM account WHERE id = 2", &[]).with("22000");
    client.fail("SELECT env_decrypt(secret) FROM account WHERE id = 2", &[]).with("22000");
}

/// A function that opens a value and gives the SQLSTATE, or `opened`.
const ATTEMPT: &str = "CREATE FUNCTION pg_temp.attempt(value bytea) RETURNS text LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM public.env_decrypt(value, 'row 1');
        RETURN 'opened';
    EXCEPTION WHEN OTHERS THEN
        RETURN SQLSTATE;
    END $$";

/// Damaged values are not ours, from the future, not authentic, of another type, or name a key that is not there.
const EXPECTED_OF_DAMAGE: [&str; 5] = ["22P03", "0A000", "22000", "42804", "42704"];

#[test]
fn no_damaged_value_opens() {
    let mut client = connect();
    client.run(ATTEMPT);
    let query = "SELECT env_encrypt('a text'::text, 'local:dev', '{\"table\": \"t\", \"column\": \"c\"}', 'row 1')";
    let value: Vec<u8> = client.one(query, &[]);
    assert_eq!(client.one::<String>("SELECT pg_temp.attempt($1)", &[&value]), "opened");
    for (what, query) in [
        (
            "flipped bits",
            "SELECT pg_temp.attempt(set_bit(value, bit, 1 - get_bit(value, bit)))
             FROM generate_series(0, 8 * length(value) - 1) AS bit",
        ),
        (
            "inverted bytes",
            "SELECT pg_temp.attempt(set_byte(value, byte, 255 - get_byte(value, byte)))
             FROM generate_series(0, length(value) - 1) AS byte",
        ),
        (
            "truncations",
            "SELECT pg_temp.attempt(substr(value, 1, count)) FROM generate_series(0, length(value) - 1) AS count",
        ),
        (
            "lost first bytes",
            "SELECT pg_temp.attempt(substr(value, count)) FROM generate_series(2, length(value)) AS count",
        ),
        (
            "appended bytes",
            "SELECT pg_temp.attempt(value || set_byte('\\x00', 0, byte)) FROM generate_series(0, 255) AS byte",
        ),
    ] {
        let query = query.replacen(" FROM ", " FROM (SELECT $1::bytea AS value) AS given, ", 1);
        let rows = client.query(&query, &[&value]).expect("every attempt ends");
        assert!(rows.len() + 1 >= value.len().min(256));
        let seen: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
        let unexpected: Vec<_> = seen.iter().filter(|state| !EXPECTED_OF_DAMAGE.contains(&state.as_str())).collect();
        assert!(unexpected.is_empty(), "{what}: {unexpected:?}");
    }
    assert_eq!(client.one::<String>("SELECT pg_temp.attempt($1)", &[&value]), "opened", "and nothing of it stays");
}

#[test]
fn what_is_not_a_value_is_told_from_one_of_the_future() {
    let mut client = connect();
    let value = client.encrypt("a text", "local:dev");
    let changed = |place: usize, byte: u8| {
        let mut changed = value.clone();
        changed[place] = byte;
        changed
    };
    for (bytes, sqlstate) in [
        (Vec::new(), "22P03"),
        (b"plain text".to_vec(), "22P03"),
        (vec![0xf6, 0x45], "22P03"),
        (changed(0, 0xf7), "22P03"),
        (changed(2, 2), "0A000"),
        (changed(3, 2), "0A000"),
        (changed(4, 9), "22P03"),
        (changed(5, 0x80), "22P03"),
        (changed(5, 2), "0A000"),
    ] {
        client.fail_to_decrypt(&bytes).with(sqlstate);
        for reader in ["env_key_id", "env_dek_id", "env_inspect"] {
            client.fail(&format!("SELECT {reader}($1)"), &[&bytes]).with(sqlstate);
        }
        assert!(!client.one::<bool>("SELECT env_is_envelope($1)", &[&bytes]), "{bytes:?}");
    }
    assert!(client.one::<bool>("SELECT env_is_envelope($1)", &[&value]));
}

#[test]
fn inspection_agrees_with_itself() {
    let mut client = connect();
    let query = "SELECT env_encrypt('a text'::text, 'local:dev', '{\"b\": \"2\", \"a\": \"1\"}', 'row 1')";
    let value: Vec<u8> = client.one(query, &[]);
    let facts = "SELECT format('%s %s %s %s %s %s %s %s %s', format_version, type, has_aad, is_padded, wrapped_keys,
             provider, key_id, encryption_context, ciphertext_bytes) FROM env_inspect($1)";
    assert_eq!(client.one::<String>(facts, &[&value]), r#"1 text t f 1 local local:dev {"a": "1", "b": "2"} 6"#);
    let same = "SELECT dek_id = env_dek_id($1) AND length(dek_id) = 32 AND length(nonce) = 24 \
                AND value_bytes = length($1) AND suite ~ 'XAES' FROM env_inspect($1)";
    assert!(client.one::<bool>(same, &[&value]));
}
