//! A small file that processes map, to share counters.

use std::sync::atomic::AtomicU64;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

/// Bytes of the file.
pub const BYTES: usize = 8192;
/// What it is made of.
pub type Counters = [AtomicU64; BYTES / size_of::<AtomicU64>()];

/// Maps the file for the rest of the process's life.
///
/// # Errors
/// Why it cannot be mapped.
///
/// # Panics
/// Unless the file has its bytes: to touch what lies behind a file's end is a SIGBUS.
pub fn map(file: &OwnedFd) -> Result<&'static Counters, Errno> {
    assert!(rustix::fs::fstat(file)?.st_size as usize >= BYTES);
    // SAFETY: a new mapping, page-aligned, as large as Counters, never unmapped; atomics are valid whatever their bits.
    unsafe {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let address = rustix::mm::mmap(std::ptr::null_mut(), BYTES, protection, MapFlags::SHARED, file, 0)?;
        Ok(&*address.cast::<Counters>())
    }
}
