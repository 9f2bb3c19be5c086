//! env_encrypt_trigger and rows that come from elsewhere: dump and restore, logical replication. Nothing is encrypted twice.

use testkit::install::Installation;
use testkit::{Client, Cluster, Fixture, Session, wait_until};

const TRIGGER: &str =
    "CREATE TRIGGER encrypt BEFORE INSERT OR UPDATE ON patient FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(
    '{\"source\": \"ssn\", \"target\": \"ssn_enc\", \"key_id\": \"local:dev\", \"aad\": \"patient.ssn:{id}\"}',
    '{\"source\": \"scan\", \"target\": \"scan\", \"key_id\": \"local:dev\"}')";
const TABLE: &str = "CREATE TABLE patient (id int PRIMARY KEY, note text,
    ssn text CHECK (ssn IS NULL), ssn_enc bytea CHECK (env_is_envelope(ssn_enc, 'local:dev')), scan bytea);
    ALTER TABLE patient ALTER scan SET STORAGE EXTERNAL, ALTER ssn_enc SET STORAGE EXTERNAL";
const ROWS: i64 = 20;

/// The table with its trigger, and rows of which some values are stored out of line.
fn make_table(client: &mut Client) {
    client.run(TABLE);
    client.run(TRIGGER);
    client.run(&format!(
        "INSERT INTO patient (id, ssn, scan)
         SELECT i, repeat('ssn ' || i, 1 + i % 2 * 1000), decode(repeat('d8', 10 + i % 2 * 9000), 'hex')
         FROM generate_series(1, {ROWS}) AS i"
    ));
}

/// All bytes of the encrypted columns.
fn stored(client: &mut Client) -> String {
    client.one("SELECT md5(string_agg(concat_ws('/', id, ssn_enc, scan), ',' ORDER BY id)) FROM patient", &[])
}

#[track_caller]
fn check_that_all_open(client: &mut Client) {
    let right =
        "SELECT count(*) FROM patient WHERE env_decrypt(ssn_enc, 'patient.ssn:' || id) ~ ('^(ssn ' || id || ')+$')
                 AND env_decrypt_bytea(scan) = decode(repeat('d8', 10 + id % 2 * 9000), 'hex') AND ssn IS NULL";
    assert_eq!(client.one::<i64>(right, &[]), ROWS);
}

#[test]
fn dump_and_restore_with_the_trigger_in_place() {
    let fixture = Fixture::local();
    let mut source = fixture.connect();
    make_table(&mut source);
    let before = stored(&mut source);
    check_that_all_open(&mut source);

    let cluster = &fixture.cluster;
    cluster.sql("CREATE DATABASE target");
    let path = |name: &str| cluster.directory().join(name).display().to_string();
    cluster.run("pg_dump", &["--format=custom", "--file", &path("custom"), "postgres"]);
    cluster.run("pg_restore", &["--exit-on-error", "--dbname=target", &path("custom")]);
    let mut target = cluster.connect("postgres", "target");
    assert_eq!(stored(&mut target), before);
    check_that_all_open(&mut target);

    // Data only, by COPY, by INSERT, and with the triggers disabled: the trigger is there from the start.
    let data_only = ["--data-only", "--table=patient"];
    for (file, options) in [
        ("copy", &[][..]),
        ("inserts", &["--column-inserts", "--on-conflict-do-nothing"]),
        ("disabled", &["--disable-triggers"]),
    ] {
        target.run("TRUNCATE patient");
        let path = path(file);
        let options = [&data_only[..], options, &["--file", &path, "postgres"]].concat();
        cluster.run("pg_dump", &options);
        cluster.run("psql", &["--quiet", "--set=ON_ERROR_STOP=1", "--dbname=target", "--file", &path]);
        assert_eq!(stored(&mut target), before, "{file}");
        check_that_all_open(&mut target);
    }
    // The trigger came along, and works.
    target.run("INSERT INTO patient (id, ssn) VALUES (100, 'ssn 100')");
    let opened = "SELECT env_decrypt(ssn_enc, 'patient.ssn:100') FROM patient WHERE id = 100";
    assert_eq!(target.one::<String>(opened, &[]), "ssn 100");
}

/// Subscribes the second server to the table of the first, and waits for the rows that are there.
fn subscribe(publisher: &Cluster, subscriber: &mut Client, rows: i64) {
    let mut client = publisher.connect("postgres", "postgres");
    client.run("CREATE PUBLICATION patients FOR TABLE patient");
    let port: String = client.one("SHOW port", &[]);
    let host = publisher.directory().display();
    subscriber.run(&format!(
        "CREATE SUBSCRIPTION patients CONNECTION 'host={host} port={port} user=postgres dbname=postgres' PUBLICATION patients"
    ));
    wait_until("the rows are copied", || {
        subscriber.one::<i64>("SELECT count(*) FROM patient", &[]) == rows
            && subscriber.one("SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel", &[])
    });
}

fn publishing() -> Fixture {
    Fixture::local_with(Cluster::builder().setting("wal_level", "logical"))
}

#[test]
fn a_subscriber_takes_values_as_they_are() {
    let publisher = publishing();
    let mut source = publisher.connect();
    make_table(&mut source);
    for enable in ["", "ALTER TABLE patient ENABLE ALWAYS TRIGGER encrypt"] {
        // It has no key: whatever it would encrypt were an error.
        let subscriber = Fixture::local();
        subscriber.cluster.set("envelope_pg.local_keyring", "");
        let mut target = subscriber.connect();
        target.run(TABLE);
        target.run(TRIGGER);
        target.run(enable);
        subscribe(&publisher.cluster, &mut target, ROWS);
        assert_eq!(stored(&mut target), stored(&mut source));

        // Changes, also of rows whose large values are not sent again.
        source.run(
            "UPDATE patient SET note = 'changed'; UPDATE patient SET ssn = repeat('ssn ' || id, 2) WHERE id = 3;
             UPDATE patient SET ssn_enc = NULL WHERE id = 4; UPDATE patient SET id = 50, ssn = 'ssn 50' WHERE id = 5;
             DELETE FROM patient WHERE id = 6; INSERT INTO patient (id, ssn) VALUES (60, 'ssn 60')",
        );
        let wanted = stored(&mut source);
        wait_until("the changes are applied", || stored(&mut target) == wanted);
        assert_eq!(target.one::<i64>("SELECT count(*) FROM patient WHERE ssn IS NOT NULL OR note IS NULL", &[]), 1);
        target.run("DROP SUBSCRIPTION patients");
        source.run("DROP PUBLICATION patients; TRUNCATE patient; DROP TABLE patient");
        make_table(&mut source);
    }
}

#[test]
fn a_subscriber_can_encrypt_what_is_published_in_clear() {
    let publisher = publishing();
    let mut source = publisher.connect();
    source.run("CREATE TABLE patient (id int PRIMARY KEY, ssn text); INSERT INTO patient VALUES (1, 'ssn 1')");
    let subscriber = Fixture::local();
    let mut target = subscriber.connect();
    target.run(TABLE);
    target.run(TRIGGER);
    target.run("ALTER TABLE patient ENABLE ALWAYS TRIGGER encrypt");
    subscribe(&publisher.cluster, &mut target, 1);
    source.run("INSERT INTO patient VALUES (2, 'ssn 2'); UPDATE patient SET ssn = 'ssn 3', id = 3 WHERE id = 1");
    let opened =
        "SELECT coalesce(string_agg(env_decrypt(ssn_enc, 'patient.ssn:' || id), ',' ORDER BY id), '') FROM patient";
    wait_until("the changes are applied", || target.one::<String>(opened, &[]) == "ssn 2,ssn 3");
    // What is cleared there is cleared here, also where the value is out of line; other columns leave it alone.
    source.run(
        "INSERT INTO patient VALUES (4, repeat('ssn 4', 1000)), (5, repeat('ssn 5', 1000)); UPDATE patient SET ssn = NULL WHERE id IN (2, 4)",
    );
    let left =
        "SELECT string_agg(id || CASE WHEN ssn_enc IS NULL THEN ' no' ELSE ' yes' END, ',' ORDER BY id) FROM patient";
    wait_until("the changes are applied", || target.one::<String>(left, &[]) == "2 no,3 yes,4 no,5 yes");
    assert_eq!(subscriber.cluster.log().matches("cannot find rows").count(), 0);
    target.run("DROP SUBSCRIPTION patients");
}

#[test]
fn a_subscriber_without_a_key_says_that_it_does_not_find_rows() {
    let publisher = publishing();
    let mut source = publisher.connect();
    source.run("CREATE TABLE patient (id int, ssn text); ALTER TABLE patient REPLICA IDENTITY FULL; INSERT INTO patient VALUES (1, 'ssn 1')");
    let subscriber = Fixture::local();
    let mut target = subscriber.connect();
    target.run(&TABLE.replace(" PRIMARY KEY", ""));
    target.run(TRIGGER);
    target.run("ALTER TABLE patient ENABLE ALWAYS TRIGGER encrypt");
    subscribe(&publisher.cluster, &mut target, 1);
    let log = subscriber.cluster.log();
    assert!(log.contains("logical replication cannot find rows of table \"public.patient\" again"), "{log}");
    target.run("DROP SUBSCRIPTION patients");
}

/// The plaintext that a generated column is computed from stays on the publisher.
#[test]
fn a_generated_column_is_published_from_postgresql_18_on() {
    let publisher = publishing();
    let mut source = publisher.connect();
    source.run(
        "CREATE TABLE account (id int PRIMARY KEY, email text, email_enc bytea
             GENERATED ALWAYS AS (env_encrypt_generated(email, 'local:dev', '{}', 'account:' || id)) STORED);
         INSERT INTO account SELECT i, 'user ' || i FROM generate_series(1, 3) AS i",
    );
    let publish = "CREATE PUBLICATION accounts FOR TABLE account (id, email_enc)";
    match Installation::current().major_version() {
        // It has no lists of columns.
        14 => return,
        15..18 => {
            source.fail(publish, &[]).with("42P10").says("generated column");
            return;
        }
        _ => source.run(publish),
    }
    let subscriber = Fixture::local();
    let mut target = subscriber.connect();
    target.run(
        "CREATE TABLE account (id int PRIMARY KEY, email text, email_enc bytea CHECK (env_is_envelope(email_enc)))",
    );
    let port: String = source.one("SHOW port", &[]);
    let host = publisher.cluster.directory().display();
    target.run(&format!(
        "CREATE SUBSCRIPTION accounts CONNECTION 'host={host} port={port} user=postgres dbname=postgres' PUBLICATION accounts"
    ));
    let values = |client: &mut Client| -> String {
        client.one("SELECT coalesce(string_agg(concat_ws('/', id, email_enc), ',' ORDER BY id), '') FROM account", &[])
    };
    let wanted = values(&mut source);
    wait_until("the rows are copied", || values(&mut target) == wanted);
    source.run("INSERT INTO account VALUES (4, 'user 4'); UPDATE account SET email = 'another' WHERE id = 1");
    let wanted = values(&mut source);
    wait_until("the changes are applied", || values(&mut target) == wanted);
    assert_eq!(target.one::<i64>("SELECT count(*) FROM account WHERE email IS NULL", &[]), 4);
    assert_eq!(
        source.one::<String>("SELECT env_decrypt(email_enc, 'account:1') FROM account WHERE id = 1", &[]),
        "another"
    );
    target.run("DROP SUBSCRIPTION accounts");
}
