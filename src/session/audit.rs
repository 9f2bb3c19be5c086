//! The audit line: how many values were opened and sealed in a statement, by role and key. Counts and names, never a value.
//!
//! With `envelope_pg.audit = all` each use of a data key comes here, also one for a value that then fails its authentication; with
//! `denied` only what a role was refused. A parallel worker writes lines of its own.

use std::cell::RefCell;

use envelope_core::keys::named::{NAME_PREFIX, Use};
use pgrx::pg_sys::Oid;

use super::known_keys::names_of;
use crate::error::{Error, NamedKeyError};
use crate::pg::report::log;
use crate::pg::settings::{self, Audit};
use crate::pg::statement_end::at_statement_end;
use crate::pg::{backend, foreign_servers};

/// What one role did with one key.
struct Row {
    role: Oid,
    key_id: String,
    role_name: String,
    named_keys: String,
    opened: u64,
    sealed: u64,
    denied: u64,
}

/// A statement with more roles and keys than this has the rest of them in one line.
const MAX_ROWS: usize = 256;
/// In the place of a key.
const OTHERS: &str = "others";

thread_local! {
    /// Of the current statement.
    static ROWS: RefCell<Vec<Row>> = const { RefCell::new(Vec::new()) };
}

/// Counts a use of a data key under a key.
pub fn count(role: Oid, key_id: &str, what: Use) {
    add(role, key_id, |row| match what {
        Use::Decrypt => row.opened += 1,
        Use::Encrypt => row.sealed += 1,
    });
}

/// Counts an error that is a refusal.
pub fn note(error: &Error) {
    if settings::audit() == Audit::Off {
        return;
    }
    let key_id = match error {
        Error::KeyNotAllowed(key_id)
        | Error::NamedKey(NamedKeyError::NoPrivilege { key_id, .. } | NamedKeyError::NotNamed(key_id)) => {
            key_id.clone()
        }
        Error::NamedKey(NamedKeyError::NoPrivilegeOnName(name)) => format!("{NAME_PREFIX}{name}"),
        Error::Kms(error) if error.is_denial() => error.key_id.clone(),
        _ => return,
    };
    add(foreign_servers::current_user(), &key_id, |row| row.denied += 1);
}

fn add(role: Oid, key_id: &str, count: impl FnOnce(&mut Row)) {
    let is_of = |row: &Row| row.role == role && row.key_id == key_id;
    let known = ROWS.with_borrow(|rows| match rows.last() {
        // Mostly the one before.
        Some(last) if is_of(last) => Some(rows.len() - 1),
        _ => rows.iter().position(is_of).or((rows.len() >= MAX_ROWS).then_some(MAX_ROWS - 1)),
    });
    let at = known.unwrap_or_else(|| {
        // The catalogs are read before anything is borrowed: that can raise an error.
        let row = new_row(role, key_id);
        at_statement_end(write);
        ROWS.with_borrow_mut(|rows| {
            rows.push(row);
            rows.len() - 1
        })
    });
    ROWS.with_borrow_mut(|rows| count(&mut rows[at]));
}

fn new_row(role: Oid, key_id: &str) -> Row {
    let is_last = ROWS.with_borrow(Vec::len) == MAX_ROWS - 1;
    let (role_name, key_id, named_keys) = match is_last {
        true => (OTHERS.to_owned(), OTHERS.to_owned(), String::new()),
        false => (backend::role_name(role), key_id.to_owned(), names_of(key_id).join(",")),
    };
    Row { role, key_id, role_name, named_keys, opened: 0, sealed: 0, denied: 0 }
}

/// Writes what the statement did.
fn write() {
    for row in ROWS.take() {
        let Row { role_name, key_id, named_keys, opened, sealed, denied, .. } = row;
        log(&format!(
            "envelope_pg audit: role={} key={} named_key={} opened={opened} sealed={sealed} denied={denied}",
            quoted(&role_name),
            quoted(&key_id),
            quoted(&named_keys),
        ));
    }
}

/// As a JSON text: no name ends the line, or looks like another field.
fn quoted(name: &str) -> String {
    serde_json::Value::from(name).to_string()
}
