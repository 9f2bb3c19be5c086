//! The heap of this library's Rust code: what is freed is wiped. A vector of a library that has grown, a buffer of the HTTP
//! client with KMS's answer, a future with a data key in it: none of them leaves its bytes to whoever is next, or to a core dump.

use std::alloc::{GlobalAlloc, Layout, System};

use zeroize::Zeroize;

#[global_allocator]
static HEAP: WipingHeap = WipingHeap;

/// The system's allocator, with all memory wiped before it gets it back.
struct WipingHeap;

// SAFETY: all memory is the system allocator's, which is asked and given back as GlobalAlloc says.
unsafe impl GlobalAlloc for WipingHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: by the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: by the contract of `alloc_zeroed`, which is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: by the contract of `dealloc` the block has so many bytes, and nobody uses it any more. Bytes that were never
        // written may be written, and are not read.
        unsafe {
            wipe(pointer, layout.size());
            System.dealloc(pointer, layout);
        }
    }

    // Not `System.realloc`, which may move the bytes and leave them behind: the provided method allocates anew, copies, and frees
    // by `dealloc`.
}

/// # Safety
/// `pointer` has `bytes` bytes that nobody uses.
unsafe fn wipe(pointer: *mut u8, bytes: usize) {
    // SAFETY: by contract; MaybeUninit bytes are valid whatever they are.
    let block = unsafe { std::slice::from_raw_parts_mut(pointer.cast::<std::mem::MaybeUninit<u8>>(), bytes) };
    block.zeroize();
}
