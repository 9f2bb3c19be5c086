//! Asks what the policy wants to know, tells it the answers, and does what it notes.

use std::rc::Rc;

use envelope_core::cache::CachedKey;
use envelope_core::error::ValueError;
use envelope_core::keys::check_resolved;
use envelope_core::keys::named::Use;
use envelope_core::policy::note::Note;
use envelope_core::policy::{Ask, PolicyError, Step};
use envelope_core::request::{KmsError, KmsErrorKind, Reply, Request};

use super::surroundings::Here;
use super::{Policy, idle, named_keys, release, with_policy};
use crate::ask::{self, Pending, journal, own_thread, shared_counters};
use crate::error::Error;

/// Asks the policy for a data key, and whoever it wants to be asked.
///
/// # Errors
/// Why it cannot be had.
#[inline(never)]
pub fn drive_from(
    begin: impl FnOnce(&mut Policy) -> Result<Step<Pending>, PolicyError>,
) -> Result<Rc<CachedKey>, Error> {
    drive(first_step(begin)?)
}

/// Asks the policy for a data key.
///
/// # Errors
/// Why it cannot be had.
pub fn first_step(
    begin: impl FnOnce(&mut Policy) -> Result<Step<Pending>, PolicyError>,
) -> Result<Step<Pending>, Error> {
    settle_refreshes();
    let step = with_policy(begin);
    act_on_notes();
    Ok(step?)
}

/// Asks until the data key is there.
///
/// # Errors
/// Why it cannot be had.
pub fn drive(mut step: Step<Pending>) -> Result<Rc<CachedKey>, Error> {
    loop {
        let (ask, mut pending) = match step {
            Step::Ready(cached) => return Ok(cached),
            Step::Ask(ask) => start_for(ask)?,
            Step::Await(pending, ask) => (ask, pending),
        };
        let reply = ask::wait(&mut pending);
        step = tell(ask, reply)?;
    }
}

/// Starts what a step asks for, or the next one for the value that the current user may ask for.
///
/// # Errors
/// [`Error::OwnThread`]; [`Error::NamedKey`](crate::error::Error) if the current user has no right on the key.
pub fn start_for(ask: Ask) -> Result<(Ask, Pending), Error> {
    start_permitted(permitted(ask)?)
}

/// Starts what is permitted.
///
/// # Errors
/// [`Error::OwnThread`].
pub fn start_permitted(ask: Ask) -> Result<(Ask, Pending), Error> {
    before_asking();
    let pending = ask::start(ask.request().clone()).inspect_err(|_| unanswered(&ask))?;
    Ok((ask, pending))
}

/// What a step asks for, or the next thing for the value that the current user may ask for.
///
/// # Errors
/// [`Error::NamedKey`](crate::error::Error) if the current user has no right on the key.
pub fn permitted(mut ask: Ask) -> Result<Ask, Error> {
    while let Err(error) = check_rights(&ask) {
        match with_policy(|policy| policy.skip(ask, &Here)) {
            Ok(next) => ask = next,
            Err(earlier) => return Err(earlier.map_or(error, Into::into)),
        }
    }
    Ok(ask)
}

/// As [`start_permitted`], all at once.
///
/// # Errors
/// [`Error::OwnThread`].
pub fn start_all(asks: Vec<Ask>) -> Result<Vec<(Ask, Pending)>, Error> {
    before_asking();
    let requests = asks.iter().map(|ask| ask.request().clone()).collect();
    let pending = ask::start_many(requests).inspect_err(|_| asks.iter().for_each(unanswered))?;
    Ok(asks.into_iter().zip(pending).collect())
}

/// Tells the policy that there is no answer, and not because of a provider.
fn unanswered(ask: &Ask) {
    with_policy(|policy| policy.unanswered(ask, &Here));
}

/// Checks that the current user may use the key, before KMS is asked, if it is known already which key that is.
fn check_rights(ask: &Ask) -> Result<(), Error> {
    match ask.request() {
        Request::OpeningKey { wrapped, .. } if ask.is_to_open() => named_keys::check(&wrapped.key_id, Use::Decrypt),
        Request::SealingKey { key_id, .. } => {
            let key_id = key_id.to_string();
            if check_resolved(&key_id).is_ok() { named_keys::check(&key_id, Use::Encrypt) } else { Ok(()) }
        }
        _ => Ok(()),
    }
}

/// Tells the policy an answer.
///
/// # Errors
/// Why the data key may not be had.
pub fn tell(ask: Ask, reply: Result<Reply, Error>) -> Result<Step<Pending>, Error> {
    journal::write_events();
    let reply = match reply {
        Ok(reply) => Ok(reply),
        Err(Error::Kms(error)) => Err(error),
        Err(error) => {
            unanswered(&ask);
            return Err(error);
        }
    };
    let step = with_policy(|policy| policy.answered(ask, reply, &Here));
    idle::watch();
    act_on_notes();
    Ok(step?)
}

/// Starts a request that is not for a data key of this session, and that the statement waits for.
///
/// # Errors
/// [`Error::TooManyKmsCalls`], [`Error::OwnThread`].
pub fn start(request: Request) -> Result<Pending, Error> {
    with_policy(|policy| policy.begin_call(&Here))?;
    before_asking();
    ask::start(request)
}

/// Waits for such a request.
///
/// # Errors
/// Why it was not done.
pub fn finish(mut pending: Pending) -> Result<Reply, Error> {
    let reply = ask::wait(&mut pending);
    journal::write_events();
    let reply = match reply {
        Ok(reply) => Ok(reply),
        Err(Error::Kms(error)) => Err(error),
        Err(error) => return Err(error),
    };
    let reply = with_policy(|policy| policy.end_call(pending.context(), reply, &Here));
    act_on_notes();
    reply.map_err(one_message)
}

/// Acts on the background refreshes that have been answered.
fn settle_refreshes() {
    if !with_policy(|policy| policy.has_refreshes()) {
        return;
    }
    let mut refreshes = with_policy(|policy| policy.take_refreshes());
    // An answer may be logged, or the broker be asked again: nobody has the session meanwhile.
    let answered = refreshes.take_answered(Pending::try_take);
    with_policy(|policy| policy.put_back(refreshes));
    for (refresh, reply) in answered {
        let reply = match reply {
            Ok(reply) => Some(Ok(reply)),
            Err(Error::Kms(error)) => Some(Err(error)),
            Err(_) => None,
        };
        with_policy(|policy| policy.refreshed(refresh, reply, &Here));
        journal::write_events();
    }
    act_on_notes();
}

/// Does what the policy has noted.
#[inline(never)]
pub fn act_on_notes() {
    for note in with_policy(|policy| policy.take_notes()) {
        match note {
            Note::ServedStale { decided, key_id } => {
                if let Some((operation, statistics)) = decided.zip(own_thread::statistics()) {
                    statistics.served_stale(operation, &key_id);
                }
                shared_counters::note_stale();
                journal::served_stale(&key_id);
            }
            Note::CacheShort(needed_again) => journal::cache_short(needed_again),
            Note::Refused(error) => journal::refused(&error),
            Note::Refresh(refresh) => match ask::start_in_background(refresh.request().clone()) {
                Ok(Some(pending)) => with_policy(|policy| policy.refresh_started(refresh, pending)),
                // The broker is not there yet, or this backend's thread is not.
                Ok(None) | Err(_) => with_policy(|policy| policy.refresh_not_started(&refresh, &Here)),
            },
        }
    }
}

/// What is looked at before KMS or the broker is asked.
fn before_asking() {
    release::compare();
    if let Some(problem) = shared_counters::problem() {
        journal::shared_problem(&problem);
    }
}

/// One error for everything cryptographic.
fn one_message(error: PolicyError) -> Error {
    match error {
        PolicyError::Kms(KmsError { kind: KmsErrorKind::WrappedKeyRejected, .. }) => {
            ValueError::AuthenticationFailed.into()
        }
        error => error.into(),
    }
}

impl From<PolicyError> for Error {
    fn from(error: PolicyError) -> Self {
        match error {
            PolicyError::Value(error) => error.into(),
            PolicyError::Argument(error) => error.into(),
            PolicyError::Kms(error) => error.into(),
            PolicyError::KeyNotAllowed(key_id) => Self::KeyNotAllowed(key_id),
            PolicyError::TooManyCalls(limit) => Self::TooManyKmsCalls(limit),
        }
    }
}
