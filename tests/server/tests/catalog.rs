//! Every object of the extension with its labels, grants and comment, and what the grants let roles do.

use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

use testkit::{Client, Fixture, Session};

testkit::shared_fixture!(Fixture::local());

/// PostgreSQL 17 lists the types of rows and of arrays, too, and gives owners of tables MAINTAIN.
const OBJECTS: &str = r#"
    SELECT pg_describe_object(d.classid, d.objid, d.objsubid),
           obj_description(d.objid, c.relname),
           CASE p.provolatile WHEN 'i' THEN 'IMMUTABLE' WHEN 's' THEN 'STABLE' WHEN 'v' THEN 'VOLATILE' END,
           CASE p.proparallel WHEN 's' THEN 'PARALLEL SAFE' WHEN 'r' THEN 'PARALLEL RESTRICTED'
                              WHEN 'u' THEN 'PARALLEL UNSAFE' END,
           CASE WHEN p.proisstrict THEN 'STRICT' ELSE 'CALLED ON NULL INPUT' END,
           p.prosecdef OR p.proleakproof,
           pg_get_function_result(p.oid),
           regexp_replace(coalesce(p.proacl, r.relacl)::text, '(=arwdDxt)m/', '\1/', 'g')
    FROM pg_depend AS d
    JOIN pg_class AS c ON c.oid = d.classid
    LEFT JOIN pg_proc AS p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
    LEFT JOIN pg_class AS r ON d.classid = 'pg_class'::regclass AND r.oid = d.objid
    LEFT JOIN pg_type AS t ON d.classid = 'pg_type'::regclass AND t.oid = d.objid
    LEFT JOIN pg_class AS row_of ON row_of.oid = t.typrelid
    WHERE d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass
      AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'envelope_pg')
      AND (t.oid IS NULL OR (t.typcategory <> 'A' AND coalesce(row_of.relkind, 'c') = 'c'))
    ORDER BY pg_describe_object(d.classid, d.objid, d.objsubid) COLLATE "C""#;

/// A paragraph for each object of the extension.
fn describe_objects(client: &mut Client) -> String {
    let rows = client.query(OBJECTS, &[]).expect("the catalog can be read");
    let mut text = String::new();
    for row in rows {
        let word = |column: usize| row.get::<_, Option<String>>(column);
        let object = word(0).expect("an object has a description");
        let comment = word(1).unwrap_or_else(|| panic!("{object} has no comment"));
        let mut line = |prefix: &str, value: &str| writeln!(text, "{prefix}{value}").expect("a string takes it");
        line("", &object);
        if let (Some(volatility), Some(parallel), Some(strict)) = (word(2), word(3), word(4)) {
            line("  returns ", &word(6).unwrap_or_default());
            line("  ", &format!("{volatility}, {parallel}, {strict}"));
            assert_eq!(row.get::<_, Option<bool>>(5), Some(false), "{object} is SECURITY DEFINER or LEAKPROOF");
        }
        line("  access ", word(7).as_deref().unwrap_or("default"));
        line("  ", &comment);
        line("", "");
    }
    text
}

/// Set `UPDATE_EXPECTED=1` to write the file anew, and review what changed.
#[test]
fn the_extension_has_these_objects() {
    let found = describe_objects(&mut fixture().connect());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/expected/objects.txt");
    if env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(&path, &found).expect("the expected file can be written");
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    for (number, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "line {} of objects.txt", number + 1);
    }
    assert_eq!(found.lines().count(), expected.lines().count(), "one of them goes on");
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
    assert_eq!(names_where("proname !~ '^env_'"), none);
    assert_eq!(names_where("proname ~ '^env_decrypt' AND provolatile = 'i'"), none);
    assert_eq!(names_where("proname ~ '^env_encrypt(_generated)?$' AND proisstrict"), none);
    assert_eq!(names_where("proname ~ '^env_encrypt(_generated)?$' AND proparallel = 's'"), none);
    // NULL access means the default, which is everybody.
    let for_keys = "proname ~ '^env_(encrypt|decrypt|cache|local|rewrap|reencrypt|rotat|opens)' AND proname <> 'env_encryption_context'";
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
