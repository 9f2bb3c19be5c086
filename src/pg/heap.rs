//! The heap of this library's Rust code: what is freed is wiped. A vector of a library that has grown, a buffer of the HTTP
//! client with KMS's answer, a future with a data key in it: none of them leaves its bytes to whoever is next, or to a core dump.
//! Keys, which their alignment tells, have memory of their own.

use std::alloc::{GlobalAlloc, Layout, System};

use crate::pg::key_memory::{self, KEY_ALIGNMENT};

#[global_allocator]
static HEAP: WipingHeap = WipingHeap;

/// The system's allocator, with all memory wiped before it gets it back.
struct WipingHeap;

// SAFETY: all memory is the system allocator's, which is asked and given back as GlobalAlloc says, or of `key_memory`, which tells
// its own blocks by their address.
unsafe impl GlobalAlloc for WipingHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_of_key(layout)
            && let Some(block) = key_memory::allocate(layout.size())
        {
            return block.as_ptr();
        }
        // SAFETY: by the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_of_key(layout)
            && let Some(block) = key_memory::allocate(layout.size())
        {
            // SAFETY: the block has so many bytes.
            unsafe { block.as_ptr().write_bytes(0, layout.size()) };
            return block.as_ptr();
        }
        // SAFETY: by the contract of `alloc_zeroed`, which is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: by the contract of `dealloc` the block has so many bytes, and nobody uses it any more. Bytes that were never
        // written may be written, and are not read.
        unsafe {
            if is_of_key(layout) && key_memory::free(pointer) {
                return;
            }
            key_memory::wipe(pointer, layout.size());
            System.dealloc(pointer, layout);
        }
    }

    // Not `System.realloc`, which may move the bytes and leave them behind: the provided method allocates anew, copies, and frees
    // by `dealloc`.
}

/// A block of `key_memory` is aligned by its size, which is a power of two and not below this.
fn is_of_key(layout: Layout) -> bool {
    layout.align() == KEY_ALIGNMENT
}
