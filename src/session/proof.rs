//! Proof that a key provider opens the wrapped data key of a value, before the value takes the place of its plaintext: one that
//! answers GenerateDataKey with a data key and the wrapped form of another makes values that open while the data key is in
//! memory, and never again.

use std::cell::RefCell;
use std::collections::HashSet;
use std::time::Duration;

use envelope_core::format::Head;
use envelope_core::keys::named::Use;
use envelope_core::request::{Calls, KmsError, KmsErrorKind, Operation, Reply, Request, Terms};

use super::{asking, check_allowed, named_keys, pipeline};
use crate::ask::Pending;
use crate::error::Error;

/// More are asked about again.
const MAX_PROVEN: usize = 10_000;

thread_local! {
    /// What stands for the data keys that were opened: the commitment, the encryption context and the wrapped keys.
    static PROVEN: RefCell<HashSet<Box<[u8]>>> = RefCell::default();
}

/// Has the provider unwrap the data keys of these heads, many at a time, and each once in a session. Nobody's memory will do.
///
/// # Errors
/// Why it could not be asked; [`KmsErrorKind::UnexpectedAnswer`] if it does not open one of them.
pub fn prove(heads: &[Head<'_>]) -> Result<(), Error> {
    let is_proven = |head: &&Head<'_>| PROVEN.with_borrow(|proven| proven.contains(head.dek_identity()));
    let unproven: Vec<&Head<'_>> = heads.iter().filter(|head| !is_proven(head)).collect();
    pipeline::run(unproven, |head| start(head), |head, pending| finish(head, pending))
}

fn start(head: &Head<'_>) -> Result<Pending, Error> {
    let wrapped = head.wrapped_keys()?.swap_remove(0);
    check_allowed(&wrapped.key_id)?;
    named_keys::check(&wrapped.key_id, Use::Decrypt)?;
    let terms = Terms { fresh_for: Duration::ZERO, stale_for: Duration::ZERO, calls: Calls::Needed, is_ahead: false };
    let (context, commitment) = (head.encryption_context()?, Some(head.commitment()));
    asking::start(Request::OpeningKey { wrapped, context, commitment, terms })
}

fn finish(head: &Head<'_>, pending: Pending) -> Result<(), Error> {
    let opens = match asking::finish(pending) {
        Ok(Reply::Opening(grant)) => grant.dek.commitment() == head.commitment(),
        Ok(_) => false,
        Err(Error::Kms(KmsError { kind: KmsErrorKind::WrappedKeyRejected, .. }) | Error::Value(_)) => false,
        Err(error) => return Err(error),
    };
    if !opens {
        let reason = "the key provider does not open the wrapped data key to the data key that it gave with it";
        return Err(KmsError::unexpected(reason, Operation::Decrypt, &head.key_id()?).into());
    }
    PROVEN.with_borrow_mut(|proven| {
        if proven.len() >= MAX_PROVEN {
            proven.clear();
        }
        proven.insert(head.dek_identity().into());
    });
    Ok(())
}
