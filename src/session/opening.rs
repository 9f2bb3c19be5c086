//! The data key that opens a value.

use std::rc::{Rc, Weak};

use envelope_core::cache::CachedKey;
use envelope_core::format::Head;
use envelope_core::keys::named::Use;

use super::named_keys::Verdict;
use super::surroundings::Here;
use super::{audit, named_keys, page_ahead, quickly};
use crate::error::Error;

/// The data key that opens a value.
///
/// # Errors
/// Whatever keeps it from being had.
pub fn opening_key(head: &Head<'_>) -> Result<Rc<CachedKey>, Error> {
    find(head).inspect_err(audit::note)
}

#[inline]
fn find(head: &Head<'_>) -> Result<Rc<CachedKey>, Error> {
    loop {
        let cached = match quickly(|session| session.policy.open_quickly(head, &Here)) {
            Some(cached) => cached,
            None => page_ahead::open(head)?,
        };
        if named_keys::check_cached(&cached, Use::Decrypt)? == Verdict::Good {
            return Ok(cached);
        }
    }
}

/// The data key of a value, if the session has it and may use it without asking. Whether the current user may decrypt with it is not
/// checked: for whoever gives nothing of the plaintext out.
pub fn opening_key_at_hand(head: &Head<'_>) -> Option<Rc<CachedKey>> {
    quickly(|session| session.policy.open_quickly(head, &Here))
}

/// A data key that was had before, if the session keeps it still, and it may be used without asking.
///
/// # Errors
/// The current user may not use its key.
#[inline]
pub fn opening_key_again(known: &Weak<CachedKey>) -> Result<Option<Rc<CachedKey>>, Error> {
    let cached = quickly(|session| session.policy.open_again(known, &Here));
    match &cached {
        Some(found) if named_keys::check_cached(found, Use::Decrypt)? == Verdict::LookAgain => Ok(None),
        _ => Ok(cached),
    }
}
