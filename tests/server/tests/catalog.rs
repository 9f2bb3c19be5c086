//! Every object of the extension with its labels, grants and comment, and what the grants let roles do.

use std::path::Path;
use std::{env, fs};

use testkit::{Catalog, Fixture, Session};

testkit::shared_fixture!(Fixture::local());

/// Set `UPDATE_EXPECTED=1` to write the file anew, and review what changed.
#[test]
fn the_catalog_is_the_committed_one() {
    let mut client = fixture().connect();
    let mut found = Catalog::read(&mut client).text();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/expected/catalog.txt");
    if env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(&path, &found).expect("the expected file can be written");
    }
    let mut expected = fs::read_to_string(&path).unwrap_or_default();
    // From 16 on the body of a view that reads one table has its columns without the table's name.
    if client.one::<bool>("SELECT current_setting('server_version_num')::int >= 160000", &[]) {
        for text in [&mut found, &mut expected] {
            *text = client.one(r"SELECT regexp_replace($1::text, '\m[a-z]\w*\.(?=\w)', '', 'g')", &[&*text]);
        }
    }
    for (number, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "line {} of catalog.txt", number + 1);
    }
    assert_eq!(found.lines().count(), expected.lines().count(), "one of them goes on");
}

/// What nobody would see in a list of names: each is done in a transaction, and must show, in one object and in no other.
#[test]
fn a_change_of_any_kind_shows() {
    let fixture = fixture();
    let mut client = fixture.connect();
    let before = Catalog::read(&mut client);
    for (change, shows) in [
        ("ALTER FUNCTION envelope_internal.rotation_triage(text) RESET search_path", "- function envelope_internal.rotation_triage(text): SET search_path="),
        (
            "CREATE OR REPLACE FUNCTION envelope_internal.rotation_next_tid(row_tid tid) RETURNS tid LANGUAGE sql IMMUTABLE STRICT
                 SET search_path = pg_catalog, pg_temp AS 'SELECT $1'",
            "+ function envelope_internal.rotation_next_tid(tid): | SELECT $1",
        ),
        ("ALTER TABLE envelope_internal.rotation_run DISABLE ROW LEVEL SECURITY", "+ table envelope_internal.rotation_run: row security f"),
        ("DROP POLICY written ON envelope_internal.rotation_dek", "- table envelope_internal.rotation_dek: policy written"),
        ("ALTER FUNCTION public.env_decrypt(bytea) COST 1", "+ function public.env_decrypt(bytea): c, STABLE, PARALLEL SAFE, STRICT, COST 1"),
        ("ALTER FUNCTION public.env_decrypt(bytea) IMMUTABLE", "+ function public.env_decrypt(bytea): c, IMMUTABLE"),
        ("ALTER FUNCTION public.env_encrypt(text, text) PARALLEL SAFE", "+ function public.env_encrypt(text,text): c, VOLATILE, PARALLEL SAFE"),
        ("GRANT EXECUTE ON FUNCTION public.env_decrypt(bytea) TO PUBLIC", "+ function public.env_decrypt(bytea): access {postgres=X/postgres,envelope_decrypt=X/postgres,=X/postgres}"),
        ("GRANT CREATE ON SCHEMA envelope_internal TO envelope_rotate", "+ schema envelope_internal: access"),
        ("GRANT UPDATE (parameters) ON envelope_internal.rotation_run TO envelope_rotate", "+ table envelope_internal.rotation_run: column parameters"),
        ("COMMENT ON VIEW public.env_rotation IS 'another'", "+ view public.env_rotation: comment another"),
        (
            "CREATE OR REPLACE VIEW public.env_rotation_failure AS SELECT failure_id, run_id, relation, tid, dek_id, row_count, sqlstate,
                 'hidden'::text AS message FROM envelope_internal.rotation_failure",
            "+ view public.env_rotation_failure: | ",
        ),
        ("ALTER TABLE envelope_internal.rotation_run ALTER status SET DEFAULT 'done'", "+ table envelope_internal.rotation_run: column status text not null default 'done'"),
        ("ALTER TABLE envelope_internal.rotation_run DROP CONSTRAINT rotation_run_status_check", "- table envelope_internal.rotation_run: constraint rotation_run_status_check"),
        ("DROP INDEX envelope_internal.rotation_run_open", "- table envelope_internal.rotation_run: CREATE UNIQUE INDEX"),
        (
            "CREATE FUNCTION public.env_more() RETURNS int LANGUAGE sql AS 'SELECT 1'; COMMENT ON FUNCTION public.env_more() IS 'more';
             ALTER EXTENSION envelope_pg ADD FUNCTION public.env_more()",
            "+ function public.env_more(): function public.env_more()",
        ),
        ("ALTER EXTENSION envelope_pg DROP VIEW public.env_rotation", "- view public.env_rotation: view public.env_rotation"),
    ] {
        client.run("BEGIN");
        client.run(change);
        let difference = before.difference(&Catalog::read(&mut client));
        client.run("ROLLBACK");
        assert!(difference.lines().any(|line| line.starts_with(shows)), "{change} shows as:\n{difference}");
        let object = shows[2..].split(": ").next().expect("a name");
        assert!(difference.lines().all(|line| line[2..].starts_with(object)), "{change} shows elsewhere:\n{difference}");
    }
    assert_eq!(before.difference(&Catalog::read(&mut client)), "");
}

#[test]
fn the_rules_for_labels_and_grants_hold() {
    let fixture = fixture();
    let mut client = fixture.connect();
    let functions = "FROM pg_depend JOIN pg_proc AS p ON classid = 'pg_proc'::regclass AND p.oid = objid
        WHERE deptype = 'e' AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'envelope_pg')";
    let mut names_where =
        |condition: &str| client.column::<String>(&format!("SELECT proname::text {functions} AND {condition}"));
    let none: [String; 0] = [];
    assert_eq!(names_where("(proname ~ '^env_') <> (pronamespace = 'public'::regnamespace)"), none);
    assert_eq!(names_where("proname ~ '^(env_)?decrypt' AND provolatile = 'i'"), none);
    assert_eq!(names_where("proname ~ '^(env_)?encrypt(_generated)?$' AND proisstrict"), none);
    assert_eq!(names_where("proname ~ '^(env_)?encrypt(_generated)?$' AND proparallel = 's'"), none);
    assert_eq!(names_where("proleakproof"), none);
    // What these do beyond the rights of their caller is said where they are made.
    assert_eq!(
        names_where("prosecdef ORDER BY 1"),
        ["lock_schema", "rotation_donors_drop", "rotation_donors_keep", "rotation_donors_lock"]
    );
    // NULL access means the default, which is everybody.
    let for_keys = "proname ~ '^(env_)?(encrypt|decrypt|cache|local|rewrap|reencrypt|rotat|opens)'
        AND proname !~ '^(env_)?encryption_context$'";
    assert_eq!(names_where(&format!("{for_keys} AND (proacl IS NULL OR proacl::text ~ '[{{,]=')")), none);
}

#[test]
fn public_reads_headers_and_nothing_else() {
    let fixture = fixture();
    let value = fixture.connect().encrypt("a text", "local:dev");
    let mut nobody = fixture.connect_as("nobody_special", &[]);
    for refused in [
        "env_decrypt($1)",
        "env_decrypt($1, '')",
        "env_decrypt_bytea($1)",
        "env_decrypt_jsonb($1)",
        "env_encrypt($1::bytea, 'local:dev')",
        "env_encrypt_generated($1::bytea, 'local:dev')",
    ] {
        nobody.fail(&format!("SELECT {refused}"), &[&value]).with("42501");
    }
    for refused in [
        "env_cache_flush()",
        "env_local_create_key('x')",
        "env_local_rotate_key('dev')",
        "env_inventory()",
        "env_inventory_columns()",
        "env_key_usage('local:dev')",
    ] {
        nobody.fail(&format!("SELECT {refused}"), &[]).with("42501");
    }
    assert!(nobody.one::<bool>("SELECT env_is_envelope($1)", &[&value]));
    assert_eq!(nobody.one::<String>("SELECT env_key_id($1)", &[&value]), "local:dev");
    assert!(nobody.one::<bool>("SELECT env_is_envelope($1, 'local:dev')", &[&value]));
    assert_eq!(nobody.one::<Vec<String>>("SELECT env_key_ids($1)", &[&value]), ["local:dev"]);
    assert!(nobody.one::<bool>("SELECT env_is_same_key('local:dev', 'local:dev')", &[]));
    nobody.one::<Vec<u8>>("SELECT env_dek_id($1)", &[&value]);
    nobody.one::<String>("SELECT env_encryption_context($1)::text", &[&value]);
    nobody.one::<i64>("SELECT value_bytes FROM env_inspect($1)", &[&value]);
    assert_eq!(nobody.one::<String>("SHOW envelope_pg.cache_ttl", &[]), "15min");
    nobody.fail("SHOW envelope_pg.local_keyring", &[]).with("42501");
}

#[test]
fn each_group_role_may_do_its_part() {
    let fixture = fixture();
    let value = fixture.connect().encrypt("a text", "local:dev");
    let encrypt = "SELECT env_encrypt('a text'::text, 'local:dev')";
    let decrypt = "SELECT env_decrypt($1)";

    let mut writer = fixture.connect_as("a_writer", &["envelope_encrypt"]);
    writer.one::<Vec<u8>>(encrypt, &[]);
    writer.fail(decrypt, &[&value]).with("42501");
    let mut reader = fixture.connect_as("a_reader", &["envelope_decrypt"]);
    assert_eq!(reader.one::<String>(decrypt, &[&value]), "a text");
    reader.fail(encrypt, &[]).with("42501");
    for group in ["envelope_rotate", "envelope_admin"] {
        let mut member = fixture.connect_as(&format!("in_{group}"), &[group]);
        member.fail(encrypt, &[]).with("42501");
        member.fail(decrypt, &[&value]).with("42501");
        member.one::<i32>("SELECT env_cache_flush()", &[]);
    }
    for client in [&mut writer, &mut reader] {
        client.one::<i32>("SELECT env_cache_flush()", &[]);
    }
    let can_log_in = "SELECT count(*) FROM pg_roles WHERE rolname ~ '^envelope_' AND (rolcanlogin OR rolsuper)";
    assert_eq!(reader.one::<i64>(can_log_in, &[]), 0);
}

#[test]
fn a_generated_column_needs_the_grant_of_whoever_writes() {
    let fixture = fixture();
    fixture.cluster.sql(
        "CREATE TABLE granted (plain text, value bytea GENERATED ALWAYS AS
             (env_encrypt_generated(plain, 'local:dev')) STORED);
         GRANT INSERT, SELECT ON granted TO PUBLIC",
    );
    let insert = "INSERT INTO granted VALUES ('a text')";
    fixture.connect_as("nobody_special", &[]).fail(insert, &[]).with("42501");
    fixture.connect_as("a_writer", &["envelope_encrypt"]).run(insert);
    let mut reader = fixture.connect_as("a_reader", &["envelope_decrypt"]);
    assert!(reader.one::<bool>("SELECT bool_and(env_decrypt(value) = plain) FROM granted", &[]));
}

#[test]
fn decryption_cannot_be_indexed() {
    let fixture = fixture();
    let mut client = fixture.connect();
    client.run("CREATE TEMP TABLE searched (value bytea)");
    client.fail("CREATE INDEX ON searched (env_decrypt(value))", &[]).with("42P17");
    client.run("CREATE INDEX ON searched (env_key_id(value)); CREATE INDEX ON searched (env_dek_id(value))");
    client.run("ALTER TABLE searched ADD CHECK (env_is_envelope(value))");
    client.fail("INSERT INTO searched VALUES ('plain')", &[]).with("23514");
    client.run("INSERT INTO searched VALUES (env_encrypt('a text'::text, 'local:dev'))");
}

#[test]
fn a_second_database_shares_the_group_roles() {
    let fixture = fixture();
    fixture.cluster.sql("CREATE DATABASE second");
    let mut client = fixture.cluster.connect("postgres", "second");
    client.run("CREATE SCHEMA crypto; CREATE EXTENSION envelope_pg SCHEMA crypto");
    let same = "SELECT crypto.env_decrypt(crypto.env_encrypt('a text'::text, 'local:dev'))";
    assert_eq!(client.one::<String>(same, &[]), "a text");
    client.run("DROP EXTENSION envelope_pg");
    let roles = "SELECT count(*) FROM pg_roles WHERE rolname IN
        ('envelope_encrypt', 'envelope_decrypt', 'envelope_rotate', 'envelope_admin')";
    assert_eq!(client.one::<i64>(roles, &[]), 4);
}
