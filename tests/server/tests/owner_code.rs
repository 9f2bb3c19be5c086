//! Whatever a table's owner can have run for its rows does not run with the rights of a DBA who rotates, adopts or plans: 12.2, 12.3.

use server_tests::adversary::{is_superuser, trap};
use testkit::{Client, Fixture, Session};

testkit::shared_fixture!(Fixture::local());

/// A role with a schema, and traps in it: what runs one as a superuser makes the role one.
fn adversary(fixture: &Fixture, role: &str) -> Client {
    fixture.cluster.sql(&format!(
        "CREATE ROLE {role} LOGIN;
         GRANT envelope_encrypt TO {role};
         GRANT CREATE ON DATABASE postgres TO {role};
         CREATE SCHEMA {role} AUTHORIZATION {role};
         SET ROLE {role};
         SET search_path = {role};
         {trap};
         CREATE FUNCTION bait(float8, float8) RETURNS float8 LANGUAGE sql IMMUTABLE AS 'SELECT {role}.trap()::float8';
         CREATE VIEW trapped AS SELECT trap() AS one;
         CREATE DOMAIN trapped_int AS int CHECK (bait(VALUE) = 1);
         CREATE TYPE holder AS (one trapped_int);
         CREATE TYPE span AS RANGE (SUBTYPE = float8, SUBTYPE_DIFF = bait);
         CREATE TYPE mood AS ENUM ('ok', 'bad');
         CREATE TYPE pair AS (x int, y int);
         CREATE FUNCTION said(mood) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT {role}.trap()::text';
         CREATE FUNCTION said(pair) RETURNS json LANGUAGE sql IMMUTABLE AS 'SELECT to_json({role}.trap())';
         CREATE FUNCTION read(text) RETURNS mood LANGUAGE sql IMMUTABLE AS 'SELECT CASE {role}.trap() WHEN 1 THEN ''ok''::{role}.mood END';
         CREATE TABLE t (id int, n int DEFAULT 0, value bytea);
         INSERT INTO t SELECT i, 0, public.env_encrypt('x', 'local:dev') FROM generate_series(1, 20) AS i",
        trap = trap(role)
    ));
    let mut owner = fixture.cluster.connect(role, "postgres");
    owner.run(&format!("SET search_path = {role}, public"));
    owner
}

#[test]
fn neither_a_plan_nor_a_run_runs_what_the_owner_wrote() {
    let fixture = fixture();
    let mut owner = adversary(&fixture, "setter");
    let mut dba = fixture.connect();
    dba.run("SELECT env_local_create_key('other')");
    let check = |expression: &str| {
        (
            format!("ALTER TABLE t ADD CONSTRAINT bait CHECK ({expression}) NOT VALID"),
            "ALTER TABLE t DROP CONSTRAINT bait".to_owned(),
        )
    };
    let index = |expression: &str| (format!("CREATE INDEX bait ON t {expression}"), "DROP INDEX bait".to_owned());
    let mut runs = 0;
    for (make, undo) in [
        index("((bait(1) + id))"),
        index("(id) WHERE bait(1) = 1"),
        // A function of the server that reads a table by its name, or types.
        check("table_to_xml('setter.trapped'::regclass, true, true, '') IS NOT NULL"),
        check("schema_to_xml('setter', true, true, '') IS NOT NULL"),
        check("jsonb_populate_record(NULL::holder, jsonb_build_object('one', n)) IS NOT NULL"),
        check("record_in(textout('(' || n || ')'), 'setter.holder'::regtype::oid, -1) IS NOT NULL"),
        check("('{' || n || '}')::trapped_int[] IS NOT NULL"),
        check("('(' || n || ')')::holder IS NOT NULL"),
        check("n::trapped_int IS NOT NULL"),
        check("lower(int4range(n, 9)) = bait(n) OR true"),
        (
            "CREATE TRIGGER bait BEFORE UPDATE ON t FOR EACH ROW
             WHEN (table_to_xml('setter.trapped'::regclass, true, true, '') IS NOT NULL)
             EXECUTE FUNCTION suppress_redundant_updates_trigger()"
                .into(),
            "DROP TRIGGER bait ON t".into(),
        ),
        (
            "ALTER TABLE t ADD spans span DEFAULT '[1,2]'; CREATE INDEX bait ON t USING gist (spans)".into(),
            "ALTER TABLE t DROP spans".into(),
        ),
        ("CREATE STATISTICS bait ON (bait(1) + id), id FROM t".into(), "DROP STATISTICS bait".into()),
        (
            "ALTER TABLE t RENAME TO whole; CREATE TABLE part (LIKE whole) PARTITION BY LIST (bait(id));
             CREATE TABLE t PARTITION OF part FOR VALUES IN (1);
             INSERT INTO t SELECT * FROM whole"
                .into(),
            "DROP TABLE part; ALTER TABLE whole RENAME TO t".into(),
        ),
    ] {
        owner.run(&make);
        for statement in [
            "SELECT * FROM env_rotation_plan('setter.t', 'value', 'local:other')",
            "SELECT * FROM env_rotation_plan('setter.t', 'value', 'local:other', trial_rows => 0)",
            "SELECT envelope_internal.rotation_obstacles('{\"column\": \"value\", \"method\": \"rewrap\", \"to_key\": \"local:other\"}'
                || jsonb_build_object('relation', 'setter.t'::regclass::oid))",
            "CALL env_rotate('setter.t', 'value', 'local:other')",
            "CALL env_rotate('setter.t', 'value', 'local:other', 'reencrypt')",
        ] {
            let failed = dba.batch_execute(statement).expect_err(statement);
            assert_eq!(failed.code().map(|code| code.code()), Some("42501"), "{make}; {statement}: {failed:?}");
            assert!(!is_superuser(&mut dba, "setter"), "{make}; {statement}");
            runs += 1;
        }
        owner.run(&undo);
    }
    println!("{runs} attempts");
    // What everybody has keeps no DBA from his work.
    owner.run(
        "ALTER TABLE t ADD made timestamptz DEFAULT now(), ADD spirit mood DEFAULT 'ok', ADD tags text[], ADD whole pair,
             ADD CHECK (made <= now() + interval '1 day' AND made > DATE '2000-01-01' AND length(tags[1]) < 9),
             ADD CHECK (public.env_is_envelope(value)), ADD CHECK (spirit IN ('ok', 'bad') AND n BETWEEN 0 AND 9);
         CREATE INDEX ON t (lower(tags[1])) WHERE n > 0",
    );
    dba.run("SELECT * FROM env_rotation_plan('setter.t', 'value', 'local:other')");
    dba.run("CALL env_rotate('setter.t', 'value', 'local:other')");
    let rotated = "SELECT count(*) FROM setter.t WHERE env_key_id(value) = 'local:other'";
    assert_eq!(dba.one::<i64>(rotated, &[]), 20);
}

#[test]
fn an_adoption_runs_no_cast_of_the_owner() {
    let fixture = fixture();
    let mut owner = adversary(&fixture, "caster");
    let mut dba = fixture.connect();
    owner.run("CREATE TABLE plain (id int, m mood, p pair, h holder, d trapped_int[], e bytea)");
    owner.run("INSERT INTO plain VALUES (1, 'ok', '(1,2)', NULL, NULL, NULL)");
    owner.run("CREATE TABLE sealed (id int, m mood, e bytea)");
    owner.run("INSERT INTO sealed VALUES (1, NULL, env_encrypt('ok', 'local:dev'))");
    for (cast, call) in [
        (
            "CAST (mood AS text) WITH FUNCTION said(mood)",
            "CALL env_encrypt_column('caster.plain', 'm', 'e', 'local:dev')",
        ),
        (
            "CAST (pair AS json) WITH FUNCTION said(pair)",
            "CALL env_encrypt_column('caster.plain', 'p', 'e', 'local:dev')",
        ),
        ("CAST (text AS mood) WITH FUNCTION read(text)", "CALL env_decrypt_column('caster.sealed', 'e', 'm')"),
    ] {
        owner.run(&format!("CREATE {cast}"));
        let failed = dba.batch_execute(call).expect_err(cast);
        assert_eq!(failed.code().map(|code| code.code()), Some("42501"), "{cast}: {failed:?}");
        assert!(!is_superuser(&mut dba, "caster"), "{cast}");
        owner.run(&format!("DROP {}", cast.split(" WITH").next().expect("a cast")));
    }
    // A domain in a column, however deep, is code, too.
    let failed =
        dba.batch_execute("CALL env_encrypt_column('caster.plain', 'm', 'e', 'local:dev')").expect_err("holder");
    assert_eq!(failed.code().map(|code| code.code()), Some("42501"), "{failed:?}");
    owner.run("ALTER TABLE plain DROP h, DROP d");
    dba.run("CALL env_encrypt_column('caster.plain', 'm', 'e', 'local:dev')");
    assert_eq!(dba.one::<String>("SELECT env_decrypt(e) FROM caster.plain", &[]), "ok");
    assert!(!is_superuser(&mut dba, "caster"));
}

/// Between the check and the statements that rely on it.
#[test]
fn nothing_is_put_in_while_a_batch_runs() {
    let fixture = fixture();
    let mut owner = adversary(&fixture, "racer");
    let mut dba = fixture.connect();
    dba.run("BEGIN; SELECT envelope_internal.rotation_trust('racer.t'::regclass)");
    owner.run("SET lock_timeout = '200ms'");
    for statement in [
        "CREATE INDEX CONCURRENTLY late ON t ((bait(1) + id))",
        "CREATE INDEX late ON t ((bait(1) + id))",
        "CREATE STATISTICS late ON (bait(1) + id), id FROM t",
        "CREATE TRIGGER late BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "ALTER TABLE t ADD CHECK (bait(1) = 1) NOT VALID",
        "ALTER TABLE t RENAME TO moved",
        "ALTER TABLE t SET SCHEMA public",
        "ALTER SCHEMA racer RENAME TO moved",
    ] {
        let failed = owner.batch_execute(statement).expect_err(statement);
        assert_eq!(failed.code().map(|code| code.code()), Some("55P03"), "{statement}: {failed:?}");
    }
    dba.run("COMMIT");
    owner.run("ALTER SCHEMA racer RENAME TO moved");
    // With an older snapshot it could not be known.
    dba.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    dba.fail("SELECT * FROM env_rotation_plan('moved.t', 'value', 'local:dev')", &[]).with("25001");
    dba.run("ROLLBACK");
    // Whoever may not read a table may not lock it either.
    let mut member = fixture.connect_as("a_locker", &["envelope_rotate"]);
    dba.run("GRANT USAGE ON SCHEMA moved TO a_locker");
    member.fail("SELECT envelope_internal.lock_definition('moved.t'::regclass)", &[]).with("55000").says("no SELECT");
    member.fail("SELECT envelope_internal.lock_definition(0)", &[]).with("55000").says("it is gone");
}

/// What a trigger is told is not looked at when it is made. `env_index_key`, and who rotates or retires index keys, read the rules of
/// all tables.
#[test]
fn a_trigger_that_is_told_nonsense_keeps_nobody_from_his_index_keys() {
    let fixture = fixture();
    let mut owner = adversary(&fixture, "babbler");
    for (name, argument) in
        [("a", "nonsense"), ("b", "[1]"), ("c", r#"{"tokens": [1, "x", null]}"#), ("d", r#"{"tokens": 7}"#)]
    {
        owner.run(&format!(
            "CREATE TRIGGER {name} BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger('{argument}')"
        ));
    }
    let mut dba = fixture.connect();
    dba.run("SELECT env_create_index_key('people', 'local:dev')");
    assert_eq!(dba.one::<i32>("SELECT env_rotate_index_key('people')", &[]), 2);
    dba.run("SELECT env_retire_index_key('people', 1)");
    assert_eq!(dba.one::<i64>("SELECT count(*) FROM env_index_key WHERE name = 'people'", &[]), 2);
}
