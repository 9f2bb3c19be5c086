//! Named keys, and whether the current user may use a key (docs/design/NAMED_KEYS.md): asked on each use, and mostly answered by
//! comparing for whom, and as of which state of the catalogs, the answer was found.

use std::borrow::Cow;
use std::cell::{OnceCell, Ref, RefCell};
use std::collections::BTreeMap;

use envelope_core::cache::{Authorisation, CachedKey};
use envelope_core::context::EncryptionContext;
use envelope_core::keys::KeyId;
use envelope_core::keys::named::{NAME_PREFIX, NamedKey, Use};
use pgrx::pg_sys::Oid;

use crate::error::{Error, NamedKeyError};
use crate::pg::foreign_servers;
use crate::pg::settings::{self, Audit};
use crate::session::audit;
use crate::session::known_keys::{Named, known, own_ttl};

/// Whether a cached data key may be used at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum Verdict {
    /// The current user may use it.
    Good,
    /// He may, but its key's `cache_ttl` has changed: whoever found it fresh looks again.
    LookAgain,
}

/// Checks that the current user may use a cached data key.
///
/// # Errors
/// As [`check`].
#[inline]
pub fn check_cached(cached: &CachedKey, what: Use) -> Result<Verdict, Error> {
    let now = authorisation();
    if cached.authorisation(what) == Some(now) {
        return Ok(Verdict::Good);
    }
    check_anew(cached, what, now)
}

/// What is kept is never `audited`, so that each use that is to be counted comes here.
#[inline(never)]
fn check_anew(cached: &CachedKey, what: Use, now: Authorisation) -> Result<Verdict, Error> {
    let found = Authorisation { audited: false, ..now };
    if cached.authorisation(what) != Some(found) {
        check(cached.data_key().key_id(), what)?;
        cached.authorise(what, found);
        if cached.set_own_ttl(own_ttl(cached.data_key().key_id())) {
            return Ok(Verdict::LookAgain);
        }
    }
    if now.audited {
        audit::count(Oid::from(now.role), cached.data_key().key_id(), what);
    }
    Ok(Verdict::Good)
}

/// Checks that the current user may use a key, by key ARN or `local:name`.
///
/// # Errors
/// [`NamedKeyError::NoPrivilege`], [`NamedKeyError::NotNamed`].
pub fn check(key_id: &str, what: Use) -> Result<(), Error> {
    let role = foreign_servers::current_user();
    let known = known()?;
    let mut naming = known.keys.iter().filter(|named| named.key.names(key_id)).peekable();
    if naming.peek().is_none() {
        return match settings::require_named_keys() && !foreign_servers::is_superuser(role) {
            true => Err(NamedKeyError::NotNamed(key_id.to_owned()).into()),
            false => Ok(()),
        };
    }
    let may = |named: &Named| named.key.allows(what, key_id) && named.is_usable_by(role);
    if naming.any(may) || foreign_servers::is_superuser(role) {
        return Ok(());
    }
    Err(NamedKeyError::NoPrivilege { key_id: key_id.to_owned(), what }.into())
}

/// The key id that a statement means: what a named key stands for, anything else as it is.
///
/// # Errors
/// [`NamedKeyError::Unknown`], and [`NamedKeyError::NoPrivilege`] for a name that the current user may not use.
pub fn key_id(text: &str) -> Result<Cow<'_, str>, Error> {
    match text.strip_prefix(NAME_PREFIX) {
        Some(name) => with_named(name, |key| Ok(Cow::Owned(key.key_id.clone()))),
        None => Ok(Cow::Borrowed(text)),
    }
}

/// The key and the encryption context that a statement chooses for what it seals.
pub struct KeyChoice {
    /// As the statement has it: a key id, or the name of a named key.
    key: String,
    /// It is a name, which begins behind [`NAME_PREFIX`].
    is_name: bool,
    context: EncryptionContext,
    /// What the name of a named key was last found to mean.
    meaning: RefCell<OnceCell<Meaning>>,
}

/// What a choice means for a role, as of a state of the catalogs.
struct Meaning {
    role: Oid,
    changes: u64,
    key_id: String,
    context: EncryptionContext,
}

impl KeyChoice {
    /// A key id, or a named key's name behind [`NAME_PREFIX`], and an encryption context.
    pub fn new(key: String, context: EncryptionContext) -> Self {
        Self { is_name: key.starts_with(NAME_PREFIX), key, context, meaning: RefCell::default() }
    }

    /// Whether it is a key id, or the name of a named key.
    pub fn names_a_key(&self) -> bool {
        match self.key.strip_prefix(NAME_PREFIX) {
            Some(name) => known().is_ok_and(|known| known.named(name).is_some()),
            None => KeyId::parse(&self.key).is_ok(),
        }
    }

    /// Calls `seal` with the key id and the encryption context that are meant. New values under a named key get its encryption
    /// context, and what the statement adds to it.
    ///
    /// # Errors
    /// As [`key_id`]; [`NamedKeyError::Context`] if the statement contradicts the named key; what `seal` returns.
    #[inline]
    pub fn with_key<T>(&self, seal: impl FnOnce(&str, &EncryptionContext) -> Result<T, Error>) -> Result<T, Error> {
        let meaning = if self.is_name { Some(self.meaning()?) } else { None };
        let (key_id, context) = match &meaning {
            Some(meaning) => (&meaning.key_id, &meaning.context),
            None => (&self.key, &self.context),
        };
        seal(key_id, context)
    }

    /// What the name means now: mostly what it meant for the value before. It may be held while a value is sealed: that runs no SQL,
    /// which alone could ask again.
    #[inline]
    fn meaning(&self) -> Result<Ref<'_, Meaning>, Error> {
        let (role, changes) = (foreign_servers::current_user(), foreign_servers::changes());
        let is_known = |meaning: &Meaning| meaning.role == role && meaning.changes == changes;
        Ref::filter_map(self.meaning.borrow(), |kept| kept.get().filter(|meaning| is_known(meaning))).or_else(|stale| {
            drop(stale);
            self.find(role, changes)
        })
    }

    /// `changes` are those before anything is read: what is reported meanwhile counts against what is found.
    #[inline(never)]
    fn find(&self, role: Oid, changes: u64) -> Result<Ref<'_, Meaning>, Error> {
        let name = &self.key[NAME_PREFIX.len()..];
        let meaning = with_named(name, |key| {
            Ok(Meaning { role, changes, key_id: key.key_id.clone(), context: self.context_under(name, key)? })
        })?;
        self.meaning.take();
        Ok(Ref::map(self.meaning.borrow(), |kept| kept.get_or_init(|| meaning)))
    }

    /// The named key's encryption context, and what the statement adds to it.
    fn context_under(&self, name: &str, key: &NamedKey) -> Result<EncryptionContext, Error> {
        let mut pairs: BTreeMap<String, String> = BTreeMap::new();
        for (pair_key, value) in key.encryption_context.pairs().chain(self.context.pairs()) {
            if pairs.insert(pair_key.to_owned(), value.to_owned()).is_some_and(|before| before != value) {
                return Err(NamedKeyError::Context(name.to_owned()).into());
            }
        }
        Ok(EncryptionContext::from_pairs(&pairs)?)
    }
}

/// For whom, and as of which state, a check holds.
#[inline]
fn authorisation() -> Authorisation {
    let checks = settings::use_checks();
    Authorisation {
        role: foreign_servers::current_user().to_u32(),
        changes: foreign_servers::changes(),
        named_only: checks.named_keys_required,
        audited: checks.audit == Audit::All,
    }
}

fn with_named<T>(name: &str, use_key: impl FnOnce(&NamedKey) -> Result<T, Error>) -> Result<T, Error> {
    let known = known()?;
    let named = known.named(name).ok_or(NamedKeyError::Unknown)?;
    if !named.is_usable_by(foreign_servers::current_user()) {
        return Err(NamedKeyError::NoPrivilegeOnName(name.to_owned()).into()).inspect_err(audit::note);
    }
    use_key(&named.key)
}
