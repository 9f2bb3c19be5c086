//! Memory whose size a statement decides: where there is none, that is an error of the statement, and no end of the process.

use zeroize::Zeroizing;

use crate::error::Error;

/// So many zero bytes, wiped when they are dropped.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub fn zeroed(bytes: usize) -> Result<Zeroizing<Vec<u8>>, Error> {
    let mut room = Zeroizing::new(Vec::new());
    reserve(&mut room, bytes)?;
    room.resize(bytes, 0);
    Ok(room)
}

/// A copy of some bytes, wiped when it is dropped.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub fn copy_of(bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
    let mut copy = Zeroizing::new(Vec::new());
    reserve(&mut copy, bytes.len())?;
    copy.extend_from_slice(bytes);
    Ok(copy)
}

/// Room for so many bytes more.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub fn reserve(buffer: &mut Vec<u8>, bytes: usize) -> Result<(), Error> {
    buffer.try_reserve_exact(bytes).map_err(|_| Error::OutOfMemory(bytes))
}

/// Whether there is room for so many bytes: for what a crate below allocates soon, and has no error for.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub fn check(bytes: usize) -> Result<(), Error> {
    reserve(&mut Vec::new(), bytes)
}
