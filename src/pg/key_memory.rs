//! Memory for keys, apart from the heap: left out of core dumps, wiped in a forked process, and locked, as far as the limit of the
//! process for locked memory (RLIMIT_MEMLOCK) goes, so that it is not written to swap. What is freed is wiped.
//!
//! Blocks of a few sizes, each in chunks of its own, out of one reserved range of addresses: whether a block is of it is seen by its
//! address. Linux does the rest: MADV_DONTDUMP, MADV_WIPEONFORK (4.14 and later), mlock.

use std::ffi::{c_char, c_int, c_void};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mlock, mmap_anonymous, mprotect};

/// Blocks that are so aligned are of keys: the types of keys say so (`envelope_core::keys::KeyBytes`).
pub const KEY_ALIGNMENT: usize = 64;
/// Sizes of the blocks. A larger one is not of here.
const SIZES: [usize; 6] = [64, 128, 256, 512, 1024, 2048];
/// The largest block.
pub const MAX_BYTES: usize = SIZES[SIZES.len() - 1];
/// Blocks of one size, and what is locked at once.
const CHUNK_BYTES: usize = 16 << 10;
/// Addresses only: memory is taken by the chunk.
const RANGE_BYTES: usize = 256 << 20;

/// Where the range begins; 0 until it is needed.
static RANGE: AtomicUsize = AtomicUsize::new(0);
static CHUNKS: Mutex<Chunks> = Mutex::new(Chunks {
    taken: 0,
    sizes: [0; RANGE_BYTES / CHUNK_BYTES],
    free: [None; SIZES.len()],
    is_refused: false,
    not_locked: 0,
});

struct Chunks {
    /// How many of the range.
    taken: usize,
    /// Of each, which of `SIZES` its blocks have.
    sizes: [u8; RANGE_BYTES / CHUNK_BYTES],
    /// The first free block of each size. Its first word has the next one.
    free: [Option<Block>; SIZES.len()],
    /// The system gives no memory for keys.
    is_refused: bool,
    not_locked: usize,
}

#[derive(Clone, Copy)]
struct Block(NonNull<u8>);

// SAFETY: a free block belongs to whoever holds the lock.
unsafe impl Send for Block {}

/// A block of so many bytes, which are not zero; `None` if there is none of here, and the heap has to do: the block is too large, the
/// system refuses, or this is no session (what the postmaster allocates would be wiped in its children).
pub fn allocate(bytes: usize) -> Option<NonNull<u8>> {
    let size = SIZES.iter().position(|size| bytes <= *size)?;
    // SAFETY: reads a variable that a process sets once, before any thread of it.
    if !unsafe { pgrx::pg_sys::IsUnderPostmaster } {
        return None;
    }
    let mut chunks = chunks();
    if chunks.free[size].is_none() {
        chunks.take(size)?;
    }
    let Block(block) = chunks.free[size]?;
    // SAFETY: a free block is aligned, and has room for the address of the next one, or for 0, also after a fork has wiped it.
    chunks.free[size] = NonNull::new(unsafe { *block.as_ptr().cast::<*mut u8>() }).map(Block);
    Some(block)
}

/// Wipes a block of [`allocate`], and takes it back; `false` if it is not of here.
///
/// # Safety
/// If it is of here, nobody uses the block any more.
pub unsafe fn free(block: *mut u8) -> bool {
    let mut chunks = chunks();
    let Some(size) = chunks.size_of(block) else { return false };
    let next = chunks.free[size].map_or(null_mut(), |Block(next)| next.as_ptr());
    // SAFETY: by contract the block, which has so many bytes and is aligned for an address, is nobody's.
    unsafe {
        wipe(block, SIZES[size]);
        *block.cast::<*mut u8>() = next;
    }
    chunks.free[size] = NonNull::new(block).map(Block);
    true
}

/// Zeroes memory that is given back: no compiler leaves it out, and it does not write byte by byte, as zeroize does.
///
/// # Safety
/// Nobody uses these bytes any more. They may never have been written.
pub unsafe fn wipe(block: *mut u8, bytes: usize) {
    // SAFETY: by contract.
    unsafe { libc::explicit_bzero(block.cast(), bytes) };
}

/// Whether all of this process's memory for keys is locked, or the first of it would be.
pub fn is_locked() -> bool {
    if let Some(block) = allocate(MAX_BYTES) {
        // SAFETY: nobody has used it.
        unsafe { free(block.as_ptr()) };
    }
    let chunks = chunks();
    chunks.taken > 0 && chunks.not_locked == 0
}

/// Nothing that holds the lock panics half-way.
fn chunks() -> MutexGuard<'static, Chunks> {
    CHUNKS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Chunks {
    /// Which of `SIZES` a block has; `None` if it is not of here.
    fn size_of(&self, block: *mut u8) -> Option<usize> {
        let range = RANGE.load(Ordering::Relaxed);
        let offset = block.addr().wrapping_sub(range);
        (range != 0 && offset < RANGE_BYTES).then(|| usize::from(self.sizes[offset / CHUNK_BYTES]))
    }

    /// Makes one more chunk free blocks of a size.
    fn take(&mut self, size: usize) -> Option<()> {
        if self.is_refused || self.taken == self.sizes.len() {
            return None;
        }
        let Some(range) = self.range() else {
            self.is_refused = true;
            return None;
        };
        // SAFETY: the chunk is within the range, and nobody has had it yet. Its blocks are aligned for an address.
        unsafe {
            let chunk = range.as_ptr().byte_add(self.taken * CHUNK_BYTES);
            mprotect(chunk, CHUNK_BYTES, MprotectFlags::READ | MprotectFlags::WRITE).ok()?;
            if mlock(chunk, CHUNK_BYTES).is_err() {
                self.not_locked += CHUNK_BYTES;
            }
            let mut next = null_mut();
            for offset in (0..CHUNK_BYTES).step_by(SIZES[size]).rev() {
                let block = chunk.cast::<u8>().add(offset);
                *block.cast::<*mut u8>() = next;
                next = block;
            }
            self.free[size] = NonNull::new(next).map(Block);
        }
        self.sizes[self.taken] = size as u8;
        self.taken += 1;
        Some(())
    }

    /// The range, which is reserved when it is first needed.
    fn range(&self) -> Option<NonNull<c_void>> {
        let known = RANGE.load(Ordering::Relaxed);
        if known != 0 {
            return NonNull::new(std::ptr::with_exposed_provenance_mut(known));
        }
        // SAFETY: a mapping of its own, at an address that the system chooses; the advice is for it alone, and changes nothing of
        // what a program sees but in a forked process.
        let range = unsafe {
            let range =
                mmap_anonymous(null_mut(), RANGE_BYTES, ProtFlags::empty(), MapFlags::PRIVATE | MapFlags::NORESERVE)
                    .ok()?;
            madvise(range, RANGE_BYTES, Advice::LinuxDontDump).ok()?;
            // Kernels before 4.14 do not know it: a fork is then as anywhere.
            let _ = madvise(range, RANGE_BYTES, Advice::LinuxWipeOnFork);
            range
        };
        RANGE.store(range.expose_provenance(), Ordering::Relaxed);
        NonNull::new(range)
    }
}

/// In front of a block of the heap that aws-lc has: its bytes, which it does not say when it frees it.
const HEADER_BYTES: usize = 16;

/// Has aws-lc keep its keys, its key schedules and all else of up to [`MAX_BYTES`] in memory for keys. Before it allocates anything.
pub fn give_to_aws_lc() {
    // SAFETY: the three functions are a pair of malloc and free, and a realloc, as C has them; aws-lc has allocated nothing yet.
    let given =
        unsafe { aws_lc_sys::CRYPTO_set_mem_functions(Some(allocate_for_c), Some(reallocate_for_c), Some(free_for_c)) };
    debug_assert!(given == 1);
}

unsafe extern "C" fn allocate_for_c(bytes: usize, _file: *const c_char, _line: c_int) -> *mut c_void {
    if let Some(block) = allocate(bytes) {
        return block.as_ptr().cast();
    }
    let Some(whole) = bytes.checked_add(HEADER_BYTES) else { return null_mut() };
    // SAFETY: the header is in the block, which is aligned for it.
    unsafe {
        let block = libc::malloc(whole).cast::<u8>();
        if block.is_null() {
            return null_mut();
        }
        *block.cast::<usize>() = bytes;
        block.add(HEADER_BYTES).cast()
    }
}

unsafe extern "C" fn free_for_c(block: *mut c_void, _file: *const c_char, _line: c_int) {
    // SAFETY: aws-lc frees what `allocate_for_c` gave it, once, or NULL.
    unsafe {
        if block.is_null() || free(block.cast()) {
            return;
        }
        let begin = block.cast::<u8>().sub(HEADER_BYTES);
        wipe(block.cast(), *begin.cast());
        libc::free(begin.cast());
    }
}

unsafe extern "C" fn reallocate_for_c(
    block: *mut c_void,
    bytes: usize,
    file: *const c_char,
    line: c_int,
) -> *mut c_void {
    // SAFETY: as above. Both blocks have the bytes that are copied, and are not the same.
    unsafe {
        let new = allocate_for_c(bytes, file, line);
        if block.is_null() || new.is_null() {
            return new;
        }
        let before = match chunks().size_of(block.cast()) {
            Some(size) => SIZES[size],
            None => *block.cast::<u8>().sub(HEADER_BYTES).cast(),
        };
        std::ptr::copy_nonoverlapping(block.cast::<u8>(), new.cast::<u8>(), before.min(bytes));
        free_for_c(block, file, line);
        new
    }
}
