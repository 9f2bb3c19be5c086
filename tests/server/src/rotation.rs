//! What the tests of rotation share: a table, the CALL, and what the view says of the run.

use std::thread::{self, JoinHandle};

use postgres::Client;

use testkit::failure::{Failure, expect_error};
use testkit::fixture::Fixture;
use testkit::session::Session;

/// A table of `rows` values, `per_dek` under each data key. `written` logs each update of a row.
pub fn table(fixture: &Fixture, name: &str, rows: i32, per_dek: i32) {
    let key_id = &fixture.key_id;
    fixture.connect().run(&format!(
        "SET envelope_pg.dek_max_uses = {per_dek};
         CREATE TABLE {name} (id int PRIMARY KEY, value bytea);
         CREATE TABLE {name}_written (id int);
         INSERT INTO {name} SELECT i, env_encrypt('text ' || i, '{key_id}') FROM generate_series(1, {rows}) AS i;
         CREATE FUNCTION {name}_log() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO {name}_written VALUES (NEW.id); RETURN NULL; END $$;
         CREATE TRIGGER log AFTER UPDATE ON {name} FOR EACH ROW EXECUTE FUNCTION {name}_log()"
    ));
}

/// The CALL that rotates a table.
pub fn rotate(name: &str, to_key: &str, more: &str) -> String {
    format!("CALL env_rotate('{name}', 'value', '{to_key}'{more})")
}

/// How many values open to what was put in.
pub fn intact(client: &mut Client, name: &str) -> i64 {
    client.one(&format!("SELECT count(*) FROM {name} WHERE env_decrypt(value) = 'text ' || id"), &[])
}

/// How many values are under a key.
pub fn under(client: &mut Client, name: &str, key_id: &str) -> i64 {
    client.one(&format!("SELECT count(*) FROM {name} WHERE env_key_id(value) = $1"), &[&key_id])
}

/// A column of the view for the last run of a table, as text.
pub fn run_of(client: &mut Client, name: &str, column: &str) -> String {
    let last = "ORDER BY run_id DESC LIMIT 1";
    client.one(
        &format!("SELECT {column}::text FROM env_rotation WHERE relation IN ($1, 'public.' || $1) {last}"),
        &[&name],
    )
}

/// The same, of a column that is a number.
pub fn number_of(client: &mut Client, name: &str, column: &str) -> i64 {
    run_of(client, name, column).parse().expect("a number")
}

/// Runs a CALL in a thread.
pub fn spawn(mut client: Client, call: String) -> JoinHandle<(Client, Result<(), Failure>)> {
    thread::spawn(move || {
        let result = client.batch_execute(&call).map_err(|error| expect_error::<()>(Err(error)));
        (client, result)
    })
}
