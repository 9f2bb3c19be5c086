//! KMS wraps each data key once, however many CALLs and sessions bring its values under another key.

use std::process::Command;
use std::thread;

use server_tests::rotation::{intact, rotate, table, under};
use testkit::{Client, Fixture, Session};

testkit::shared_fixture!(Fixture::kms());

/// What KMS has been asked to wrap.
fn wrappings(fixture: &Fixture) -> usize {
    fixture.proxy.calls("ReEncrypt")
}

fn donors(client: &mut Client, key_id: &str) -> i64 {
    client.one("SELECT count(*) FROM envelope_internal.rotation_donor WHERE key_id = $1", &[&key_id])
}

#[test]
fn a_run_that_is_resumed_nine_times_wraps_nothing_twice() {
    let fixture = fixture();
    table(&fixture, "stops", 3000, 50);
    let new = fixture.new_key();
    fixture.proxy.reset_counts();
    let mut resumed = 0;
    // Each in a session of its own, and none with enough time.
    let slice = rotate("stops", &new.arn, ", max_seconds => 0.01, batch_blocks => 8");
    while under(&mut fixture.connect(), "stops", &new.arn) < 3000 {
        fixture.connect().run(&slice);
        resumed += 1;
        assert!(resumed < 200, "it comes to an end");
    }
    println!("{resumed} CALLs, {} wrappings of 60 data keys", wrappings(&fixture));
    assert!(resumed >= 9, "{resumed}");
    assert_eq!(wrappings(&fixture), 60);
    let mut client = fixture.connect();
    client.run(&rotate("stops", &new.arn, ""));
    assert_eq!((wrappings(&fixture), intact(&mut client, "stops")), (60, 3000));
    // And what reads them afterwards needs each data key once.
    assert_eq!(client.one::<i64>("SELECT count(DISTINCT env_dek_stub(value)) FROM stops", &[]), 60);
    assert_eq!(donors(&mut client, &new.arn), 0, "they are kept as long as a run needs them");
}

/// The loop of ROTATION.md, word by word but for its names and its minute: it ends when the run is done, and keeps the table small.
#[test]
fn the_slices_of_the_runbook_come_to_an_end() {
    let fixture = fixture();
    table(&fixture, "patient", 3000, 1000);
    let mut client = fixture.connect();
    client.run("ALTER TABLE patient RENAME value TO diagnosis; DROP TRIGGER log ON patient");
    client.run("VACUUM FULL patient");
    let new = fixture.new_key();
    let page = include_str!("../../../docs/ROTATION.md");
    let section = page.split("### In slices").nth(1).expect("the section");
    let block = section.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).expect("its block");
    let block = block.replace("arn:aws:kms:...:key/new", &new.arn).replace("max_seconds => 60", "max_seconds => 0.3");
    let size = "SELECT pg_relation_size('patient')";
    let before = client.one::<i64>(size, &[]);
    let mut shell = Command::new("bash");
    shell.args(["-euc", &block]);
    for (name, value) in fixture.cluster.tool("psql").get_envs() {
        shell.env(name, value.unwrap_or_default());
    }
    assert!(shell.env("PGDATABASE", "postgres").status().expect("bash runs").success());
    let after = client.one::<i64>(size, &[]);
    println!("{before} bytes before, {after} after");
    let count =
        "SELECT count(*) FROM patient WHERE env_key_id(diagnosis) = $1 AND env_decrypt(diagnosis) = 'text ' || id";
    assert_eq!(client.one::<i64>(count, &[&new.arn]), 3000);
    client.run("DROP TABLE patient");
}

#[test]
fn sessions_that_work_on_partitions_side_by_side_share_what_kms_wraps() {
    let fixture = fixture();
    let mut client = fixture.connect();
    client.run(&format!(
        "SET envelope_pg.dek_max_uses = 100;
         CREATE TABLE side (id int, part int, value bytea) PARTITION BY LIST (part);
         CREATE TABLE side_0 PARTITION OF side FOR VALUES IN (0); CREATE TABLE side_1 PARTITION OF side FOR VALUES IN (1);
         CREATE TABLE side_2 PARTITION OF side FOR VALUES IN (2); CREATE TABLE side_3 PARTITION OF side FOR VALUES IN (3);
         INSERT INTO side SELECT i, i % 4, env_encrypt('text ' || i, '{}') FROM generate_series(1, 2000) AS i",
        fixture.key_id
    ));
    let new = fixture.new_key();
    // So that no run is the last one before the others have begun.
    client.run("CREATE TABLE held (id int, value bytea); INSERT INTO held SELECT * FROM (SELECT id, value FROM side LIMIT 1) AS s");
    client.run(&rotate("held", &new.arn, ", max_passes => 1"));
    fixture.proxy.reset_counts();
    let sessions: Vec<_> = (0..4)
        .map(|part| {
            let (mut session, call) = (fixture.connect(), rotate(&format!("side_{part}"), &new.arn, ""));
            thread::spawn(move || session.run(&call))
        })
        .collect();
    for session in sessions {
        session.join().expect("it rotates its partition");
    }
    println!("4 sessions, {} wrappings of 20 data keys", wrappings(&fixture));
    // The first one was wrapped for the table before.
    assert_eq!(wrappings(&fixture), 19);
    assert_eq!((under(&mut client, "side", &new.arn), intact(&mut client, "side")), (2000, 2000));
    client.run(&rotate("held", &new.arn, ""));
}

/// Nobody but the session that KMS has answered can say what the new wrapped keys are.
#[test]
fn members_of_the_group_cannot_write_wrapped_keys() {
    let fixture = fixture();
    let value = fixture.connect().encrypt("a text", &fixture.key_id);
    let mut member = fixture.connect_as("a_forger", &["envelope_rotate"]);
    let insert = "INSERT INTO envelope_internal.rotation_donor (stub_hash, key_id, donor) VALUES (sha256($1), 'k', $1)";
    assert_eq!(member.execute(insert, &[&value]).unwrap_err().code().map(|code| code.code()), Some("42501"));
    let new = fixture.new_key();
    member.run(&format!(
        "SELECT envelope_internal.rotation_donors_keep(ARRAY[env_dek_stub('\\x{}')], '{}')",
        hex(&value),
        new.arn
    ));
    assert_eq!(donors(&mut fixture.connect(), &new.arn), 0, "KMS has not been asked");
    fixture
        .connect_as("nobody_special", &[])
        .fail("SELECT envelope_internal.rotation_donors_lock()", &[])
        .with("42501");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Any value of a data key is a donor for any other: it opens to the same, and only the wrapped keys differ.
#[test]
fn a_spliced_value_opens_to_what_it_did() {
    let fixture = fixture();
    let new = fixture.new_key();
    let mut client = fixture.connect();
    client.run(&format!(
        "CREATE TABLE spliced AS
         SELECT i, p AS plain, a AS aad, env_encrypt(p, '{old}', '{{\"n\": \"1\"}}', a) AS value,
                env_rewrap(env_encrypt(i::text, '{old}', '{{\"n\": \"1\"}}'), '{new}') AS donor
         FROM generate_series(1, 300) AS i,
              LATERAL (SELECT repeat(chr(64 + i % 60), CASE i % 5 WHEN 0 THEN i * 997 ELSE i % 41 END) AS p, 'row ' || i AS a) AS p",
        old = fixture.key_id,
        new = new.arn
    ));
    let right = "SELECT count(*) FROM spliced, LATERAL (SELECT env_splice(value, donor) AS s) AS s
        WHERE env_decrypt(s, aad) = plain AND env_key_ids(s) = env_key_ids(donor) AND env_splice(s, value) = value
          AND env_splice(s, env_dek_stub(donor)) = s AND env_dek_id(s) = env_dek_id(value)
          AND (to_jsonb(env_inspect(s)) - '{key_id,wrapped_dek,value_bytes}'::text[])
            = (to_jsonb(env_inspect(value)) - '{key_id,wrapped_dek,value_bytes}'::text[])";
    assert_eq!(client.one::<i64>(right, &[]), 300);
    // Of another context or data key it is none.
    let other = format!(
        "SELECT env_splice(value, env_encrypt('x', '{}', '{{\"n\": \"2\"}}')) FROM spliced LIMIT 1",
        fixture.key_id
    );
    client.fail(&other, &[]).with("22023");
}

/// Code of a table's owner does not run with the rights of a DBA: 12.3.
#[test]
fn code_of_the_owner_does_not_run_with_the_rights_of_the_caller() {
    let fixture = fixture();
    let new = fixture.new_key();
    let mut owner = fixture.connect_as("an_owner", &["envelope_encrypt", "envelope_decrypt"]);
    let mut dba = fixture.connect();
    dba.run("CREATE SCHEMA owned AUTHORIZATION an_owner");
    owner.run(&format!(
        "CREATE TABLE owned.t (id int PRIMARY KEY, value bytea);
         INSERT INTO owned.t SELECT i, env_encrypt('text ' || i, '{}') FROM generate_series(1, 20) AS i;
         CREATE FUNCTION owned.evil() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN ALTER ROLE an_owner SUPERUSER; RETURN NEW; EXCEPTION WHEN OTHERS THEN RETURN NEW; END';
         CREATE FUNCTION owned.evil(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
             'BEGIN PERFORM owned.really_evil(); RETURN i; END';
         CREATE FUNCTION owned.really_evil() RETURNS void LANGUAGE plpgsql AS
             'BEGIN ALTER ROLE an_owner SUPERUSER; EXCEPTION WHEN OTHERS THEN NULL; END'",
        fixture.key_id
    ));
    let call = format!("CALL env_rotate('owned.t', 'value', '{}')", new.arn);
    let has_xml: bool = dba.one("SELECT setting LIKE '%libxml%' FROM pg_config WHERE name = 'CONFIGURE'", &[]);
    for (make, drop) in [
        (
            "CREATE TRIGGER evil BEFORE UPDATE ON owned.t FOR EACH ROW EXECUTE FUNCTION owned.evil()",
            "DROP TRIGGER evil ON owned.t",
        ),
        ("CREATE TRIGGER evil AFTER UPDATE ON owned.t EXECUTE FUNCTION owned.evil()", "DROP TRIGGER evil ON owned.t"),
        ("CREATE INDEX evil ON owned.t (owned.evil(id))", "DROP INDEX owned.evil"),
        ("CREATE INDEX evil ON owned.t (id) WHERE owned.evil(1) = 1", "DROP INDEX owned.evil"),
        ("CREATE INDEX evil ON owned.t (owned.evil(1))", "DROP INDEX owned.evil"),
        (
            "ALTER TABLE owned.t ADD CONSTRAINT evil CHECK (owned.evil(id) = id)",
            "ALTER TABLE owned.t DROP CONSTRAINT evil",
        ),
        (
            "ALTER TABLE owned.t ADD CONSTRAINT evil CHECK (query_to_xml('SELECT owned.really_evil()', true, true, '') IS NOT NULL)",
            "ALTER TABLE owned.t DROP CONSTRAINT evil",
        ),
        (
            "ALTER TABLE owned.t ADD evil int GENERATED ALWAYS AS (owned.evil(id)) STORED",
            "ALTER TABLE owned.t DROP evil",
        ),
        ("CREATE STATISTICS owned.evil ON (owned.evil(1)), id FROM owned.t", "DROP STATISTICS owned.evil"),
        ("CREATE RULE evil AS ON UPDATE TO owned.t DO ALSO SELECT owned.really_evil()", "DROP RULE evil ON owned.t"),
    ] {
        if make.contains("query_to_xml") && !has_xml {
            continue;
        }
        owner.run(make);
        let failure = dba.batch_execute(&call).expect_err(make);
        let code = failure.code().map(|code| code.code().to_owned());
        assert!(matches!(code.as_deref(), Some("42501" | "55000")), "{make}: {failure:?}");
        owner.run(drop);
        assert!(!dba.one::<bool>("SELECT rolsuper FROM pg_roles WHERE rolname = 'an_owner'", &[]), "{make}");
    }
    // As the owner it runs, triggers and all; and so it does where nothing is his.
    owner.run("CREATE TRIGGER evil BEFORE UPDATE ON owned.t FOR EACH ROW EXECUTE FUNCTION owned.evil()");
    dba.run("GRANT envelope_rotate TO an_owner; SET ROLE an_owner");
    dba.run(&call);
    dba.run("RESET ROLE; DROP TRIGGER evil ON owned.t");
    dba.run(&format!("CALL env_rotate('owned.t', 'value', '{}')", fixture.key_id));
    assert_eq!(dba.one::<i64>("SELECT count(*) FROM owned.t WHERE env_decrypt(value) = 'text ' || id", &[]), 20);
    assert!(!dba.one::<bool>("SELECT rolsuper FROM pg_roles WHERE rolname = 'an_owner'", &[]));
}
