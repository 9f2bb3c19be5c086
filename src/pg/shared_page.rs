//! The page of PostgreSQL's shared buffers that a value is on, and those behind it in its table.

use std::sync::atomic::{AtomicU64, Ordering};

use pgrx::fcinfo::direct_function_call_as_datum;
use pgrx::pg_sys::{self, Datum};

const PAGE_BYTES: usize = pg_sys::BLCKSZ as usize;
const WORD_BYTES: usize = size_of::<u64>();

#[cfg(any(feature = "pg14", feature = "pg15"))]
type TableFile = pg_sys::RelFileNode;
#[cfg(not(any(feature = "pg14", feature = "pg15")))]
type TableFile = pg_sys::RelFileLocator;

/// A page of shared buffers that is pinned.
///
/// It stays the same page of the same table, and none of its rows is moved. Others may still add rows, and mark them as deleted:
/// what is on a copy was there while it was made, but need not fit together.
pub struct SharedPage {
    buffer: pg_sys::Buffer,
}

impl SharedPage {
    /// The page of shared buffers that some bytes are on, and where on it they begin. `None` if they are elsewhere: on a page of a
    /// temporary table, or in a copy of the row. Whoever has the bytes has the page pinned, or they would not be readable.
    pub fn of(bytes: &[u8]) -> Option<(Self, usize)> {
        // SAFETY: two variables that PostgreSQL sets before it forks its processes.
        let (blocks, count) = unsafe { (pg_sys::BufferBlocks.cast_const(), pg_sys::NBuffers) };
        if blocks.is_null() {
            return None;
        }
        let offset = bytes.as_ptr().addr().checked_sub(blocks.addr())?;
        let index = i32::try_from(offset / PAGE_BYTES).ok().filter(|index| *index < count)?;
        Some((Self { buffer: index + 1 }, offset % PAGE_BYTES))
    }

    /// A copy of it.
    pub fn copy(&self) -> Box<[u8]> {
        // SAFETY: a variable that PostgreSQL sets before it forks its processes.
        let blocks = unsafe { pg_sys::BufferBlocks.cast_const() };
        let index = self.buffer as usize - 1;
        let mut page = Vec::with_capacity(PAGE_BYTES);
        for word in 0..PAGE_BYTES / WORD_BYTES {
            let address = blocks.wrapping_add(index * PAGE_BYTES + word * WORD_BYTES).cast_mut().cast::<u64>();
            // SAFETY: one of the words of a page inside of the shared buffers, which stay mapped as long as the process lives, and
            // which begin at a multiple of 32 bytes or more. Others may write it meanwhile: it is read as an atomic.
            let word = unsafe { AtomicU64::from_ptr(address) }.load(Ordering::Relaxed);
            page.extend(word.to_ne_bytes());
        }
        page.into()
    }

    /// Calls `read` with copies of the pages behind it in its table, so many at most, until it returns false. They are read if they are
    /// not in shared buffers. None if this transaction has no lock on the table.
    pub fn for_each_behind(&self, most: u32, mut read: impl FnMut(&[u8]) -> bool) {
        // SAFETY: the buffer is pinned. The relation is closed and a buffer released, also where an error ends the transaction; the
        // lock on the table, which is looked for, keeps its file.
        unsafe {
            let (mut file, mut fork, mut block) =
                (std::mem::zeroed::<TableFile>(), pg_sys::ForkNumber::INIT_FORKNUM, 0);
            pg_sys::BufferGetTag(self.buffer, &mut file, &mut fork, &mut block);
            let table = table_of(file);
            if fork != pg_sys::ForkNumber::MAIN_FORKNUM || table == pg_sys::InvalidOid {
                return;
            }
            let relation = pg_sys::RelationIdGetRelation(table);
            if relation.is_null() {
                return;
            }
            if pg_sys::CheckRelationLockedByMe(relation, pg_sys::AccessShareLock as pg_sys::LOCKMODE, true) {
                let blocks = pg_sys::RelationGetNumberOfBlocksInFork(relation, fork);
                for block in (block.saturating_add(1)..blocks).take(most as usize) {
                    let buffer = pg_sys::ReadBuffer(relation, block);
                    // Those of a temporary table are no shared buffers.
                    let copy = (buffer > 0).then(|| Self { buffer }.copy());
                    pg_sys::ReleaseBuffer(buffer);
                    if !copy.is_some_and(|page| read(&page)) {
                        break;
                    }
                }
            }
            pg_sys::RelationClose(relation);
        }
    }
}

/// The table of a file, or InvalidOid.
///
/// # Safety
/// In a transaction.
unsafe fn table_of(file: TableFile) -> pg_sys::Oid {
    #[cfg(any(feature = "pg14", feature = "pg15"))]
    let (tablespace, number) = (file.spcNode, file.relNode);
    #[cfg(not(any(feature = "pg14", feature = "pg15")))]
    let (tablespace, number) = (file.spcOid, file.relNumber);
    let arguments = [Some(Datum::from(tablespace)), Some(Datum::from(number))];
    // SAFETY: two identifiers are what it takes, and one is what it returns.
    let table = unsafe { direct_function_call_as_datum(pg_sys::pg_filenode_relation, &arguments) };
    table.map_or(pg_sys::InvalidOid, |table| pg_sys::Oid::from(table.value() as u32))
}
