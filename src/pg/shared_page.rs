//! The page of PostgreSQL's shared buffers that a value is on.

use std::sync::atomic::{AtomicU64, Ordering};

use pgrx::pg_sys;

const PAGE_BYTES: usize = pg_sys::BLCKSZ as usize;
const WORD_BYTES: usize = size_of::<u64>();

/// A copy of the page of shared buffers that some bytes are on, and where on it they begin. `None` if they are elsewhere: on a
/// page of a temporary table, or in a copy of the row.
///
/// Whoever has the bytes has the page pinned, or they would not be readable: so it stays the same page of the same table, and
/// none of its rows is moved. Others may still add rows, and mark them as deleted: what is on the copy was there while it was made,
/// but need not fit together.
pub fn page_of(bytes: &[u8]) -> Option<(Box<[u8]>, usize)> {
    // SAFETY: two variables that PostgreSQL sets before it forks its processes.
    let (blocks, count) = unsafe { (pg_sys::BufferBlocks.cast_const(), pg_sys::NBuffers) };
    if blocks.is_null() {
        return None;
    }
    let offset = bytes.as_ptr().addr().checked_sub(blocks.addr())?;
    let index = offset / PAGE_BYTES;
    if index >= usize::try_from(count).ok()? {
        return None;
    }
    let mut page = Vec::with_capacity(PAGE_BYTES);
    for word in 0..PAGE_BYTES / WORD_BYTES {
        let address = blocks.wrapping_add(index * PAGE_BYTES + word * WORD_BYTES).cast_mut().cast::<u64>();
        // SAFETY: one of the words of a page inside of the shared buffers, which stay mapped as long as the process lives, and
        // which begin at a multiple of 32 bytes or more. Others may write it meanwhile: it is read as an atomic.
        let word = unsafe { AtomicU64::from_ptr(address) }.load(Ordering::Relaxed);
        page.extend(word.to_ne_bytes());
    }
    Some((page.into(), offset % PAGE_BYTES))
}
