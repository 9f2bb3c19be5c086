//! The named keys of the database, read once for each state of the catalogs.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use envelope_core::keys::named::NamedKey;
use pgrx::pg_sys::Oid;

use crate::error::{Error, NamedKeyError};
use crate::pg::foreign_servers::{self, Server};

/// The named keys of the database.
pub struct Known {
    changes: u64,
    /// In no order.
    pub keys: Vec<Named>,
}

/// A named key.
pub struct Named {
    /// Identifies it, also when it is renamed.
    server: Oid,
    /// Its name.
    pub name: String,
    /// What it stands for.
    pub key: NamedKey,
    /// The role that was last found to have the right on it, as of the same state of the catalogs.
    may_use: Cell<Option<Oid>>,
}

impl Named {
    /// Whether a role has the right on it.
    pub fn is_usable_by(&self, role: Oid) -> bool {
        if self.may_use.get() != Some(role) {
            if !foreign_servers::may_use(self.server, role) {
                return false;
            }
            self.may_use.set(Some(role));
        }
        true
    }
}

impl Known {
    /// The one of a name.
    pub fn named(&self, name: &str) -> Option<&Named> {
        self.keys.iter().find(|named| named.name == name)
    }
}

thread_local! {
    /// The named keys of the database, as of a state of the catalogs.
    static KNOWN: RefCell<Option<Rc<Known>>> = const { RefCell::new(None) };
}

/// The named keys as the catalogs have them now.
///
/// # Errors
/// [`NamedKeyError::Options`] for one that cannot be used: nobody then knows which keys are free for all.
pub fn known() -> Result<Rc<Known>, Error> {
    loop {
        let changes = foreign_servers::changes();
        let known = KNOWN.with_borrow(Clone::clone);
        if let Some(known) = known.filter(|known| known.changes == changes) {
            return Ok(known);
        }
        // PostgreSQL may report further changes while it reads: then once more.
        let keys = foreign_servers::all()?.into_iter().map(named).collect::<Result<_, _>>()?;
        KNOWN.set(Some(Rc::new(Known { changes, keys })));
    }
}

fn named(server: Server) -> Result<Named, Error> {
    let Server { oid, name, options } = server;
    let options = options.iter().map(|(option, value)| (option.as_str(), value.as_str()));
    // The validator let no other options in; one that a superuser has taken away must not make a key free for all.
    let key = NamedKey::from_options(options).map_err(|error| NamedKeyError::Options(name.clone(), error))?;
    Ok(Named { server: oid, name, key, may_use: Cell::default() })
}

/// How long the data keys of a key may be used before KMS is asked again, if a named key says so: the shortest time of those that
/// name it. By key ARN or `local:name`; looks at the catalogs, so only in a transaction.
pub fn own_ttl(key_id: &str) -> Option<Duration> {
    let times = |known: Rc<Known>| {
        known.keys.iter().filter(|named| named.key.names(key_id)).filter_map(|named| named.key.cache_ttl).min()
    };
    known().ok().and_then(times)
}

/// The names of a key, by key ARN or `local:name`.
pub fn names_of(key_id: &str) -> Vec<String> {
    let names = |known: Rc<Known>| {
        known.keys.iter().filter(|named| named.key.names(key_id)).map(|named| named.name.clone()).collect()
    };
    known().map(names).unwrap_or_default()
}
