//! The owner of a table is an adversary of whoever examines it with more rights: nothing that he wrote is run.

use server_tests::adversary::{self, trap};
use testkit::{Fixture, Session};

testkit::shared_fixture!(Fixture::local());

/// A schema and a role that owns it, with a table of values, and a trap: whatever of his is run by a superuser makes him one.
fn adversary(fixture: &Fixture, role: &str) {
    fixture.cluster.sql(&format!(
        "CREATE ROLE {role} LOGIN;
         GRANT envelope_encrypt TO {role};
         CREATE SCHEMA {role} AUTHORIZATION {role};
         SET ROLE {role};
         CREATE TABLE {role}.secret (id int, value bytea);
         INSERT INTO {role}.secret SELECT i, env_encrypt('x', 'local:dev') FROM generate_series(1, 100) AS i;
         {}",
        trap(role)
    ));
}

fn is_superuser(fixture: &Fixture, role: &str) -> bool {
    adversary::is_superuser(&mut fixture.connect(), role)
}

#[test]
fn an_inventory_runs_no_expression_of_an_index() {
    let fixture = fixture();
    adversary(&fixture, "indexer");
    fixture
        .cluster
        .sql("SET ROLE indexer; CREATE INDEX ON indexer.secret ((indexer.bait(1) + id)) WHERE indexer.bait(2) = 1");
    let mut client = fixture.connect();
    let rows: i64 =
        client.one("SELECT sum(rows)::bigint FROM env_inventory('indexer') WHERE content = 'envelope'", &[]);
    assert_eq!(rows, 100);
    let state: String = client.one("SELECT state FROM env_key_usage('local:dev') LIMIT 1", &[]);
    assert_eq!(state, "in use");
    assert!(!is_superuser(&fixture, "indexer"));
}

#[test]
fn a_view_in_the_place_of_a_table_is_not_run() {
    let fixture = fixture();
    adversary(&fixture, "swapper");
    let mut owner = fixture.cluster.connect("swapper", "postgres");
    owner.run("BEGIN; LOCK TABLE swapper.secret IN ACCESS EXCLUSIVE MODE");
    let waiting = std::thread::scope(|scope| {
        let examined = scope.spawn(|| {
            let mut client = fixture.connect();
            client.one::<i64>(
                "SELECT coalesce(sum(rows), 0)::bigint FROM env_inventory('swapper') WHERE content = 'envelope'",
                &[],
            )
        });
        let mut witness = fixture.connect();
        testkit::wait_until("the inventory waits for the lock", || {
            witness.one(
                "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'swapper.secret'::regclass AND NOT granted)",
                &[],
            )
        });
        owner.run(
            "ALTER TABLE swapper.secret RENAME TO moved;
             CREATE VIEW swapper.secret AS SELECT swapper.trap() AS id, ''::bytea AS value;
             COMMIT",
        );
        examined.join().expect("the inventory ends")
    });
    assert_eq!(waiting, 100, "the table itself, by whatever name");
    assert!(!is_superuser(&fixture, "swapper"));
}

#[test]
fn what_is_hidden_by_a_policy_that_came_meanwhile_is_not_examined() {
    let fixture = fixture();
    adversary(&fixture, "hider");
    let mut reader = fixture.connect_as("examiner", &["envelope_admin"]);
    fixture.cluster.sql("GRANT USAGE ON SCHEMA hider TO examiner; GRANT SELECT ON hider.secret TO examiner");
    let columns = "SELECT envelope_internal.count_values('hider.secret'::regclass, '{2}')::text";
    assert!(reader.one::<String>(columns, &[]).contains("local:dev"));
    fixture.cluster.sql("ALTER TABLE hider.secret ENABLE ROW LEVEL SECURITY");
    reader.fail(columns, &[]).with("55000").says("row-level security hides rows");
    fixture
        .cluster
        .sql("ALTER TABLE hider.secret DISABLE ROW LEVEL SECURITY; REVOKE SELECT ON hider.secret FROM examiner");
    reader.fail(columns, &[]).with("55000").says("no SELECT on the table");
    let mut client = fixture.connect();
    client.fail("SELECT envelope_internal.count_values('hider.secret'::regclass, '{1}')", &[]).with("55000");
    client.fail("SELECT envelope_internal.count_values(0, '{1}')", &[]).with("55000").says("it is gone");
    client
        .fail("SELECT envelope_internal.count_values('pg_roles'::regclass, '{1}')", &[])
        .with("55000")
        .says("not a table");
}
