//! Data keys that are rewrapped: KMS unwraps and wraps them, and neither they nor any data come here in plaintext. Each is
//! asked for once, and kept for the other values under it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use envelope_core::cache::{Rewrapped, RewrappedKeys};
use envelope_core::context::EncryptionContext;
use envelope_core::format::{Head, WrappedKeys};
use envelope_core::keys::named::Use;
use envelope_core::keys::{KeyArn, KeyId, WrappedKey};
use envelope_core::policy::Epochs;
use envelope_core::request::{KmsError, Operation, Reply, Request};

use crate::ask::Pending;
use crate::ask::shared_counters;
use crate::error::Error;
use crate::pg::settings;
use crate::session::{self, check_allowed, named_keys, pipeline};

thread_local! {
    static REWRAPPED: RefCell<(RewrappedKeys, Option<Epochs>)> = RefCell::new((RewrappedKeys::new(), None));
}

/// What has been rewrapped, unless somebody has flushed everywhere since.
fn with_rewrapped<T>(use_keys: impl FnOnce(&mut RewrappedKeys) -> T) -> T {
    REWRAPPED.with_borrow_mut(|(keys, seen)| {
        let now = shared_counters::epochs();
        let flushes = |seen: Option<Epochs>| seen.map(|seen| seen.flushes);
        if flushes(std::mem::replace(seen, now)) != flushes(now) {
            keys.clear();
        }
        use_keys(keys)
    })
}

/// What a value needs to come under a key.
pub enum Change {
    /// Nothing: it is.
    None,
    /// These wrapped keys in the place of its own.
    Rewrapped(Rc<Rewrapped>),
}

/// The key that a key id stands for, if that is known without asking: an alias is once something was wrapped under it.
///
/// # Errors
/// For what is not a key id.
pub fn target(to_key: &str) -> Result<Option<Rc<str>>, Error> {
    let ttl = settings::cache_ttl();
    if let Some(key) = with_rewrapped(|keys| keys.resolve(to_key, Instant::now(), ttl)) {
        return Ok(Some(key));
    }
    Ok(match KeyId::parse(to_key)? {
        KeyId::Local(_) => Some(to_key.into()),
        KeyId::AwsArn { arn, .. } => {
            let is_key = KeyArn::parse(&arn).is_some_and(|arn| arn.key().is_some());
            is_key.then(|| arn.into())
        }
        KeyId::AwsName(_) => None,
    })
}

/// What the value of this head needs to come under a key, asking KMS if this data key is new.
///
/// # Errors
/// Whatever keeps its data key from being rewrapped.
pub fn change(head: &Head<'_>, to_key: &str) -> Result<Change, Error> {
    let job = match plan(head, to_key)? {
        Plan::Known(change) => return Ok(change),
        Plan::Ask(job) => job,
    };
    let mut first_error = None;
    for at in 0..job.sources.len() {
        let asked = Instant::now();
        let answer = job.start(at).and_then(|pending| job.finish(at, pending, asked));
        match answer {
            Ok(change) => return Ok(change),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.expect("a value has one wrapped key at least"))
}

/// The wrapped keys that the data key of this head has been given under a key by this session, without asking.
///
/// # Errors
/// For what is not a key id.
pub fn known(head: &Head<'_>, to_key: &str) -> Result<Option<Rc<Rewrapped>>, Error> {
    Ok(match plan(head, to_key)? {
        Plan::Known(Change::Rewrapped(rewrapped)) => Some(rewrapped),
        Plan::Known(Change::None) | Plan::Ask(_) => None,
    })
}

/// That the data key of this head may and can be brought under a key, as far as that is known without asking.
///
/// # Errors
/// [`Error::KeyNotAllowed`], [`Error::OutOfReach`], and what is wrong with the head.
pub fn check(head: &Head<'_>, to_key: &str) -> Result<(), Error> {
    let (sources, to) = (head.wrapped_keys()?, KeyId::parse(to_key)?);
    let mut first_error = None;
    for source in sources {
        let checked = check_allowed(&source.key_id).and_then(|()| match can_rewrap(&source, &to) {
            true => Ok(()),
            false => Err(Error::OutOfReach(source.key_id, to_key.to_owned())),
        });
        match checked {
            Ok(()) => return Ok(()),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.expect("a value has one wrapped key at least"))
}

/// Has the data keys of these heads rewrapped, many at a time.
///
/// # Errors
/// As [`pipeline::run`].
pub fn warm(heads: &[Head<'_>], to_key: &str) -> Result<(), Error> {
    let mut heads = heads.iter();
    // The first answer says what an alias stands for, and with that which values are under it already.
    while target(to_key)?.is_none()
        && let Some(head) = heads.next()
    {
        change(head, to_key)?;
    }
    let (mut jobs, mut first_error) = (Vec::new(), None);
    for head in heads {
        match plan(head, to_key) {
            Ok(Plan::Known(_)) => {}
            Ok(Plan::Ask(job)) => jobs.push(job),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    let asked = Instant::now();
    pipeline::run(jobs, |job| job.start(0), |job, pending| job.finish(0, pending, asked).map(drop))?;
    first_error.map_or(Ok(()), Err)
}

/// Forgets all.
pub fn flush() {
    with_rewrapped(RewrappedKeys::clear);
}

/// How to find out what a value needs.
enum Plan {
    Known(Change),
    Ask(Job),
}

/// A data key that is to be rewrapped.
struct Job {
    identity: Box<[u8]>,
    /// One at least.
    sources: Vec<WrappedKey>,
    context: EncryptionContext,
    named: String,
    to: KeyId,
}

fn plan(head: &Head<'_>, to_key: &str) -> Result<Plan, Error> {
    check_allowed(to_key)?;
    let target = target(to_key)?;
    if let Some(target) = &target {
        check_allowed(target)?;
        named_keys::check(target, Use::Encrypt)?;
        let ttl = settings::cache_ttl();
        let found = with_rewrapped(|keys| keys.find(target, head.dek_identity(), Instant::now(), ttl));
        if let Some(rewrapped) = found {
            check_allowed(&rewrapped.source)?;
            named_keys::check(&rewrapped.source, Use::Decrypt)?;
            return Ok(Plan::Known(Change::Rewrapped(rewrapped)));
        }
    }
    let sources = head.wrapped_keys()?;
    if target.is_some_and(|target| is_under(&sources, &target)) {
        return Ok(Plan::Known(Change::None));
    }
    let (named, to) = (to_key.to_owned(), KeyId::parse(to_key)?);
    Ok(Plan::Ask(Job { identity: head.dek_identity().into(), sources, context: head.encryption_context()?, named, to }))
}

/// Whether a value is under this key and no other.
fn is_under(wrapped: &[WrappedKey], key_id: &str) -> bool {
    matches!(wrapped, [only] if only.key_id == key_id)
}

impl Job {
    fn start(&self, at: usize) -> Result<Pending, Error> {
        let source = self.sources[at].clone();
        check_allowed(&source.key_id)?;
        named_keys::check(&source.key_id, Use::Decrypt)?;
        if !can_rewrap(&source, &self.to) {
            return Err(Error::OutOfReach(source.key_id, self.named.clone()));
        }
        session::start(Request::Rewrap { wrapped: source, context: self.context.clone(), to: self.to.clone() })
    }

    fn finish(&self, at: usize, pending: Pending, asked: Instant) -> Result<Change, Error> {
        match session::finish(pending)? {
            Reply::Rewrapped(wrapped) => self.take(at, wrapped, asked),
            Reply::Sealing(_) | Reply::Opening(_) => unreachable!("the reply is to this request"),
        }
    }

    fn take(&self, at: usize, new: WrappedKey, asked: Instant) -> Result<Change, Error> {
        check_allowed(&new.key_id)?;
        named_keys::check(&new.key_id, Use::Encrypt)?;
        with_rewrapped(|keys| keys.resolved(&self.named, &new.key_id, asked));
        if is_under(&self.sources, &new.key_id) {
            return Ok(Change::None);
        }
        let source = self.sources[at].key_id.clone();
        let too_large = || KmsError::unexpected("the wrapped data key is too large", Operation::ReEncrypt, &new.key_id);
        let wrapped_keys = WrappedKeys::write(std::slice::from_ref(&new)).ok_or_else(too_large)?;
        let rewrapped = Rewrapped { source, wrapped_keys };
        Ok(Change::Rewrapped(with_rewrapped(|keys| keys.insert(&new.key_id, &self.identity, rewrapped, asked))))
    }
}

/// ReEncrypt is one call to one region. Whether a key that is not named by ARN is in it, KMS says.
fn can_rewrap(source: &WrappedKey, to: &KeyId) -> bool {
    let region = KeyArn::parse(&source.key_id).map(|arn| arn.region);
    match to {
        KeyId::AwsArn { region: to, .. } => region == Some(to),
        _ => source.provider == to.provider(),
    }
}
