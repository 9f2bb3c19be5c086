//! A small file that processes map, to share counters.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

/// Bytes of the file.
pub const BYTES: usize = 8192;
/// What it is made of.
pub type Counters = [AtomicU64; BYTES / size_of::<AtomicU64>()];

/// Which file it is.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    /// That of an open file.
    ///
    /// # Errors
    /// Why it cannot be known.
    pub fn of(file: &OwnedFd) -> Result<Self, Errno> {
        rustix::fs::fstat(file).map(|stat| Self { device: stat.st_dev, inode: stat.st_ino })
    }

    /// Whether another file, or none, has this path. To be called in signal handlers, too.
    pub fn is_gone_from(&self, path: &str) -> bool {
        match rustix::fs::stat(path) {
            Ok(stat) => *self != Self { device: stat.st_dev, inode: stat.st_ino },
            Err(error) => error == Errno::NOENT,
        }
    }
}

/// What is in use of something that is seldom replaced, and never freed: whoever has got it may go on with it.
pub struct Current<T: 'static>(AtomicPtr<T>);

impl<T: Sync> Current<T> {
    /// Nothing yet.
    pub const fn none() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// What was set last.
    #[inline]
    pub fn get(&self) -> Option<&'static T> {
        // SAFETY: null, or what `set` has leaked; shared between threads only as references.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }

    /// Puts something in its place.
    pub fn set(&self, value: T) -> &'static T {
        let value = Box::leak(Box::new(value));
        self.0.store(value, Ordering::Release);
        value
    }
}

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
