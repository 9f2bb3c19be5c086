//! The index keys of this backend: which versions there are, and the data keys that they are. A version is unwrapped, cached,
//! flushed, refused and counted as any data key is.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};

use envelope_core::cache::CachedKey;
use envelope_core::error::ValueError;
use envelope_core::format::Envelope;
use envelope_core::search::IndexKey;

use super::{opening_key, opening_key_again};
use crate::error::Error;
use crate::pg::index_keys::{changes, read};

/// More names than this are not kept: each is read again for the table's price.
const MAX_NAMES: usize = 1024;

/// The versions of an index key that make tokens.
pub struct Index {
    name: Box<[u8]>,
    /// Ascending.
    live: Vec<Version>,
    /// Those that make none any more.
    retired: Vec<u32>,
}

/// A version of an index key.
pub struct Version {
    number: u32,
    stub: Box<[u8]>,
    /// The data key of the stub as it was last opened: for as long as the session's cache keeps it.
    opened: RefCell<Weak<CachedKey>>,
}

/// A version that may be used now.
pub struct OpenedIndexKey(Rc<CachedKey>);

impl OpenedIndexKey {
    /// The index key.
    pub fn key(&self) -> &IndexKey {
        self.0.data_key().index_key().expect("it was when it was opened")
    }
}

#[derive(Default)]
struct Known {
    /// Of the table when they were read.
    changes: u64,
    by_name: HashMap<Box<[u8]>, Rc<Index>>,
    last: Option<Rc<Index>>,
}

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::default();
}

/// The index key of a name, in the database's encoding.
///
/// # Errors
/// [`Error::NoIndexKey`].
pub fn index(name: &[u8]) -> Result<Rc<Index>, Error> {
    let now = changes();
    let found = KNOWN.with_borrow_mut(|known| {
        if known.changes != now {
            *known = Known { changes: now, ..Known::default() };
        }
        if let Some(last) = &known.last
            && *last.name == *name
        {
            return Some(Rc::clone(last));
        }
        known.last = known.by_name.get(name).cloned();
        known.last.clone()
    });
    match found {
        Some(index) => Ok(index),
        None => read_index(name),
    }
}

#[cold]
fn read_index(name: &[u8]) -> Result<Rc<Index>, Error> {
    // Opening the table may bring word of a change; what is read then is as of after it.
    let rows = read(name);
    let mut latest: HashMap<i32, _> = HashMap::new();
    for row in rows {
        let newest = latest.entry(row.version).or_insert_with(|| None);
        if newest.as_ref().is_none_or(|newest: &crate::pg::index_keys::Row| newest.revision < row.revision) {
            *newest = Some(row);
        }
    }
    if latest.is_empty() {
        return Err(Error::NoIndexKey);
    }
    let mut index = Index { name: name.into(), live: Vec::new(), retired: Vec::new() };
    for row in latest.into_values().flatten() {
        let number = u32::try_from(row.version).map_err(|_| Error::NoIndexKey)?;
        match row.is_retired {
            true => index.retired.push(number),
            false => index.live.push(Version { number, stub: row.stub, opened: RefCell::default() }),
        }
    }
    index.live.sort_unstable_by_key(|version| version.number);
    let index = Rc::new(index);
    KNOWN.with_borrow_mut(|known| {
        if known.by_name.len() >= MAX_NAMES {
            known.by_name.clear();
        }
        known.by_name.insert(name.into(), Rc::clone(&index));
        known.last = Some(Rc::clone(&index));
    });
    Ok(index)
}

impl Index {
    /// The version that makes new tokens, or another one that makes some.
    ///
    /// # Errors
    /// [`Error::NoIndexKeyVersion`], [`Error::RetiredIndexKey`], and whatever keeps the data key from being had.
    pub fn version(&self, wanted: Option<i32>) -> Result<OpenedIndexKey, Error> {
        let Some(wanted) = wanted else {
            return self.live.last().ok_or(Error::RetiredIndexKey)?.open(&self.name);
        };
        match self.live.iter().find(|version| i64::from(version.number) == i64::from(wanted)) {
            Some(version) => version.open(&self.name),
            None if self.retired.iter().any(|number| i64::from(*number) == i64::from(wanted)) => {
                Err(Error::RetiredIndexKey)
            }
            None => Err(Error::NoIndexKeyVersion(wanted)),
        }
    }

    /// All versions that make tokens.
    ///
    /// # Errors
    /// [`Error::RetiredIndexKey`] if there is none, and whatever keeps a data key from being had.
    pub fn live(&self) -> Result<Vec<OpenedIndexKey>, Error> {
        if self.live.is_empty() {
            return Err(Error::RetiredIndexKey);
        }
        self.live.iter().map(|version| version.open(&self.name)).collect()
    }
}

impl Version {
    fn open(&self, name: &[u8]) -> Result<OpenedIndexKey, Error> {
        if let Some(cached) = opening_key_again(&self.opened.borrow())? {
            return Ok(OpenedIndexKey(cached));
        }
        let cached = opening_key(&Envelope::parse(&self.stub)?.head)?;
        // The table could say anything; KMS has authenticated what the data key says of itself. A name of ASCII is the same in
        // every encoding.
        match cached.data_key().index_key() {
            Some(key) if key.version() == self.number && key.name().as_bytes() == name => {
                self.opened.replace(Rc::downgrade(&cached));
                Ok(OpenedIndexKey(cached))
            }
            _ => Err(ValueError::AuthenticationFailed.into()),
        }
    }
}
