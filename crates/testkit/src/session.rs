//! Short forms for what tests say to a client connection.

use postgres::Client;
use postgres::types::{FromSqlOwned, ToSql};

use crate::failure::{Failure, expect_error};
use crate::waiting::wait_until;

/// What tests do with a connection, in one word each.
pub trait Session {
    /// The only column of the only row of a query.
    fn one<T: FromSqlOwned>(&mut self, query: &str, parameters: &[&(dyn ToSql + Sync)]) -> T;

    /// The first column of all rows of a query.
    fn column<T: FromSqlOwned>(&mut self, query: &str) -> Vec<T>;

    /// Runs statements that must succeed.
    fn run(&mut self, statements: &str);

    /// The only column of the only row of a query, or how it failed.
    fn attempt<T: FromSqlOwned>(&mut self, query: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<T, Failure>;

    /// Runs a query that must fail.
    fn fail(&mut self, query: &str, parameters: &[&(dyn ToSql + Sync)]) -> Failure;

    /// The process id of the backend.
    fn backend(&mut self) -> i32;

    /// Waits until another backend waits for the broker or a key provider.
    fn see_waiting(&mut self, backend: i32) {
        let waits = "SELECT coalesce(wait_event_type, '') = 'Extension' FROM pg_stat_activity WHERE pid = $1";
        wait_until("the statement waits", || self.one(waits, &[&backend]));
    }

    /// Waits until KMS was last asked about each data key of the session more than so many seconds ago. It also waits for what is as
    /// old as they are, such as a pause of the circuit breaker that began no later.
    fn see_aged(&mut self, seconds: f64) {
        let aged = "SELECT coalesce(min(age_seconds), 'infinity') > $1 FROM env_stat_cache";
        wait_until("the data keys are so old", || self.one(aged, &[&seconds]));
    }

    /// `env_encrypt` of a text.
    fn encrypt(&mut self, plaintext: &str, key_id: &str) -> Vec<u8> {
        self.one("SELECT env_encrypt($1::text, $2)", &[&plaintext, &key_id])
    }

    /// `env_decrypt` of a value.
    fn decrypt(&mut self, value: &[u8]) -> String {
        self.one("SELECT env_decrypt($1)", &[&value])
    }

    /// `env_encrypt` of a text, or how it failed.
    fn try_encrypt(&mut self, plaintext: &str, key_id: &str) -> Result<Vec<u8>, Failure> {
        self.attempt("SELECT env_encrypt($1::text, $2)", &[&plaintext, &key_id])
    }

    /// `env_decrypt` of a value, or how it failed.
    fn try_decrypt(&mut self, value: &[u8]) -> Result<String, Failure> {
        self.attempt("SELECT env_decrypt($1)", &[&value])
    }

    /// `env_decrypt` of a value, from when the session's circuit breakers let the first call through.
    fn decrypt_when_back(&mut self, value: &[u8]) -> String {
        let mut plaintext = None;
        wait_until("the circuit breakers close", || {
            plaintext = self.try_decrypt(value).ok();
            plaintext.is_some()
        });
        plaintext.unwrap_or_default()
    }

    /// The failure of an `env_encrypt` of a text.
    #[track_caller]
    fn fail_to_encrypt(&mut self, key_id: &str) -> Failure {
        self.fail("SELECT env_encrypt('a text'::text, $1)", &[&key_id])
    }

    /// The failure of an `env_decrypt` of a value.
    #[track_caller]
    fn fail_to_decrypt(&mut self, value: &[u8]) -> Failure {
        self.fail("SELECT env_decrypt($1)", &[&value])
    }
}

impl Session for Client {
    #[track_caller]
    fn one<T: FromSqlOwned>(&mut self, query: &str, parameters: &[&(dyn ToSql + Sync)]) -> T {
        self.query_one(query, parameters).unwrap_or_else(|error| panic!("{query}: {error:?}")).get(0)
    }

    #[track_caller]
    fn column<T: FromSqlOwned>(&mut self, query: &str) -> Vec<T> {
        let rows = self.query(query, &[]).unwrap_or_else(|error| panic!("{query}: {error:?}"));
        rows.iter().map(|row| row.get(0)).collect()
    }

    #[track_caller]
    fn run(&mut self, statements: &str) {
        self.batch_execute(statements).unwrap_or_else(|error| panic!("{statements}: {error:?}"));
    }

    #[track_caller]
    fn attempt<T: FromSqlOwned>(&mut self, query: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<T, Failure> {
        match self.query_one(query, parameters) {
            Ok(row) => Ok(row.get(0)),
            Err(error) => Err(Failure::of(&error).unwrap_or_else(|| panic!("{query}: {error:?}"))),
        }
    }

    #[track_caller]
    fn fail(&mut self, query: &str, parameters: &[&(dyn ToSql + Sync)]) -> Failure {
        expect_error(self.query(query, parameters))
    }

    fn backend(&mut self) -> i32 {
        self.one("SELECT pg_backend_pid()", &[])
    }
}
