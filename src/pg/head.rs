//! The head of an encrypted value, read without the rest of it.

use envelope_core::error::ValueError;
use envelope_core::format::{Head, HeadError};

use crate::pg::varlena::VarlenaDatum;

/// Bytes of a value's head that are read first: enough for all but large encryption contexts.
const FIRST_SLICE_BYTES: usize = 512;

impl VarlenaDatum<'_> {
    /// Parses the head of an encrypted value, and reads no more of it from its TOAST table than that. Calls `read` with it.
    ///
    /// # Errors
    /// What is wrong with the value, or what `read` returns.
    pub fn with_head<T>(self, read: impl FnOnce(&Head<'_>) -> Result<T, ValueError>) -> Result<T, ValueError> {
        if let Some(whole) = self.inline_bytes() {
            return match Head::parse(whole, whole.len()) {
                Ok(head) => read(&head),
                Err(HeadError::Invalid(error)) => Err(error),
                Err(HeadError::NeedBytes(_)) => Err(ValueError::Truncated),
            };
        }
        let value_bytes = self.claimed_bytes();
        let mut wanted = FIRST_SLICE_BYTES;
        loop {
            let prefix = self.first_bytes(wanted);
            match Head::parse(prefix, value_bytes) {
                Ok(head) => return read(&head),
                Err(HeadError::Invalid(error)) => return Err(error),
                // A damaged value has fewer bytes than its header says: more of them are not to be had.
                Err(HeadError::NeedBytes(_)) if prefix.len() < wanted => return Err(ValueError::Truncated),
                Err(HeadError::NeedBytes(bytes)) => wanted = bytes,
            }
        }
    }
}
