//! What large values take of a backend's memory, and what happens when there is not enough.

use testkit::usage::{limit_address_space, peak_memory_kb, reset_peak_memory};
use testkit::{Client, Cluster, Fixture, Session};

const VALUE_MIB: usize = 64;
const VALUE_KB: usize = VALUE_MIB << 10;
/// What else a statement may take.
const SLACK_KB: usize = 8 << 10;

fn with_large_value() -> (Fixture, Client) {
    let fixture = Fixture::local();
    let mut client = fixture.connect();
    client.run(&format!(
        "CREATE TABLE large (plain bytea, value bytea);
         ALTER TABLE large ALTER plain SET STORAGE EXTERNAL, ALTER value SET STORAGE EXTERNAL;
         INSERT INTO large (plain) SELECT convert_to(repeat('x', {VALUE_MIB} * 1024 * 1024), 'UTF8');
         UPDATE large SET value = env_encrypt(plain, 'local:dev')"
    ));
    let client = fixture.connect();
    (fixture, client)
}

#[test]
fn a_large_value_takes_itself_and_its_result() {
    let (_fixture, mut client) = with_large_value();
    let pid = client.backend();
    for (expression, limit_kb) in [
        ("length(env_encrypt(plain, 'local:dev'))", 2 * VALUE_KB),
        ("length(env_decrypt_bytea(value))", 2 * VALUE_KB),
        ("length(env_key_id(value))", 0),
        ("env_is_envelope(value)::int", 0),
    ] {
        let query = format!("SELECT {expression} FROM large");
        // The data key, and the shared buffers that count as this process's memory once it has touched them.
        client.one::<i32>(&query, &[]);
        reset_peak_memory(pid);
        let before = peak_memory_kb(pid);
        client.one::<i32>(&query, &[]);
        let more = peak_memory_kb(pid) - before;
        assert!(more <= limit_kb + SLACK_KB, "{expression} took {more} kB");
        assert!(more >= limit_kb / 2, "{expression}: {more} kB is too little to be true");
    }
}

#[test]
fn too_little_memory_is_an_error_and_no_more() {
    let (_fixture, mut client) = with_large_value();
    let decrypt = "SELECT length(env_decrypt_bytea(value)) FROM large";
    assert_eq!(client.one::<i32>(decrypt, &[]), (VALUE_MIB << 20) as i32);
    // Room for the value, and not for what it opens to.
    let pid = client.backend();
    limit_address_space(pid, VALUE_KB + VALUE_KB / 2);
    let failure = client.fail(decrypt, &[]).with("53200");
    assert_eq!(failure.message, "out of memory");
    assert!(failure.detail.contains(&((VALUE_MIB << 20) + 4).to_string()), "it is the result: {failure:?}");
    assert_eq!(client.one::<String>("SELECT env_decrypt(env_encrypt('a text', 'local:dev'))", &[]), "a text");
}

/// An allocation that fails in Rust would abort the process, and PostgreSQL restart the server.
#[test]
fn how_much_a_statement_wants_never_aborts() {
    let fixture = Fixture::local();
    let mut admin = fixture.connect();
    let postmaster = fixture.cluster.pid();
    admin.run(
        "CREATE TABLE secret AS SELECT env_encrypt('v', 'local:dev') AS value;
         CREATE TABLE tenant AS SELECT env_encrypt('v', 'local:dev', jsonb_build_object('tenant', i || repeat('t', 60000))) AS value
             FROM generate_series(1, 300) AS i",
    );
    // What is asked, and the SQLSTATEs that may come of it; the empty one is success.
    for (statement, sqlstates) in [
        (
            "SELECT octet_length(env_encrypt('v', 'local:dev', jsonb_build_object('k', repeat('v', 3000000))))",
            &["22023", "53200"][..],
        ),
        ("SELECT octet_length(env_encrypt('v', repeat('k', 3000000)))", &["22023"]),
        ("SELECT octet_length(env_reencrypt(value, repeat('k', 3000000))) FROM secret", &["22023"]),
        (
            "SELECT envelope_internal.rewrap_warm(array_agg(value), 'local:dev')::text FROM secret, generate_series(1, 50000)",
            &["", "53200"],
        ),
        (
            "SELECT envelope_internal.reencrypt_warm(array_agg(value), 'local:dev')::text FROM secret, generate_series(1, 50000)",
            &["", "53200"],
        ),
        // Compressed, the values are a hundredth of their heads.
        ("SELECT (env_warm(value)).cold FROM tenant", &["", "53200"]),
    ] {
        let mut client = fixture.connect();
        client.run("SET envelope_pg.cache_entries = 8; SET jit = off");
        client.one::<String>("SELECT env_decrypt(env_encrypt('a text', 'local:dev'))", &[]);
        limit_address_space(client.backend(), 24 << 10);
        let ended = client.query(statement, &[]);
        let sqlstate = ended.as_ref().err().map_or("", |error| error.code().map_or("no answer", |code| code.code()));
        assert!(sqlstates.contains(&sqlstate), "{statement}: {ended:?}");
        assert_eq!(client.one::<String>("SELECT env_decrypt(env_encrypt('a text', 'local:dev'))", &[]), "a text");
    }
    assert_eq!(fixture.cluster.pid(), postmaster);
    assert_eq!(admin.one::<i64>("SELECT count(*) FROM secret", &[]), 1, "no backend was ended by another one's end");
}

/// Large values, with room for some copies of them and not for others; and a server that wants backtraces, for which there is none.
#[test]
fn large_values_never_abort() {
    let fixture = Fixture::local_with(Cluster::builder().environment("RUST_BACKTRACE", "1"));
    let mut admin = fixture.connect();
    let postmaster = fixture.cluster.pid();
    admin.run(
        r#"SELECT env_create_index_key('i', 'local:dev');
           CREATE TABLE large AS SELECT env_encrypt(convert_to(repeat('x', 30000000), 'UTF8'), 'local:dev') AS b,
               env_encrypt(repeat('y', 30000000), 'local:dev') AS t,
               env_encrypt(to_jsonb(repeat('z', 30000000)), 'local:dev') AS j;
           CREATE TABLE tokens (p bytea, e bytea, token bytea);
           CREATE TRIGGER encrypt BEFORE INSERT OR UPDATE ON tokens FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(
               '{"source": "p", "target": "e", "key_id": "local:dev", "tokens": [{"column": "token", "index": "i"}]}')"#,
    );
    for more_mb in [20, 45, 75, 105] {
        for statement in [
            "SELECT env_error(b) FROM large",
            "SELECT env_opens_to(b, convert_to('x', 'UTF8'))::text FROM large",
            "SELECT env_opens_to(t, 'y')::text FROM large",
            "SELECT length(env_decrypt(t)) FROM large",
            "SELECT length(env_decrypt_bytea(b)) FROM large",
            "SELECT env_decrypt_jsonb(j) IS NULL FROM large",
            "SELECT length(env_reencrypt(b, 'local:dev')) FROM large",
            "SELECT length(env_blind_index(b, 'i')) FROM large",
            "SELECT length(env_encrypt('x', 'local:dev', '{}', repeat('a', 30000000)))",
            "SELECT length(env_encrypt(repeat('x', 30000000), 'local:dev'))",
            "INSERT INTO tokens (e) SELECT b FROM large RETURNING 1",
            "INSERT INTO tokens (p) SELECT convert_to(repeat('x', 30000000), 'UTF8') RETURNING 1",
        ] {
            let mut client = fixture.connect();
            client.run("SET jit = off; SET statement_timeout = '60s'");
            client.one::<String>("SELECT env_decrypt(env_encrypt('a text', 'local:dev'))", &[]);
            limit_address_space(client.backend(), more_mb << 10);
            let ended = client.query(statement, &[]);
            let sqlstate =
                ended.as_ref().err().map_or("", |error| error.code().map_or("no answer", |code| code.code()));
            assert!(["", "53200"].contains(&sqlstate), "{statement}, {more_mb} MB: {ended:?}");
            assert_eq!(client.one::<String>("SELECT env_decrypt(env_encrypt('a text', 'local:dev'))", &[]), "a text");
        }
    }
    assert_eq!(fixture.cluster.pid(), postmaster);
}
