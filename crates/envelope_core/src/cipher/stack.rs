//! The stack that a computation with secrets has used. What it put there – key schedules, copies that moves leave, registers
//! that were spilled – is wiped in one piece, which is faster and reaches more than wiping each variable.

use std::mem::MaybeUninit;

use zeroize::optimization_barrier;

/// Does some work that uses less than `BYTES` of stack, and wipes them. What it returns is the caller's.
#[inline(always)]
pub fn with_wiped_stack<const BYTES: usize, T>(work: impl FnOnce() -> T) -> T {
    const { assert!(BYTES <= PORTABLE_BYTES) };
    let result = below_a_gap(work);
    if has_aes_instructions() {
        wipe::<BYTES>()
    } else {
        wipe::<PORTABLE_BYTES>()
    }
    result
}

/// Where the processor has no AES instructions: portable code uses much more of the stack.
const PORTABLE_BYTES: usize = 16 << 10;

fn has_aes_instructions() -> bool {
    #[cfg(target_arch = "x86_64")]
    let has = std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    let has = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let has = false;
    // The library can be built without them, too.
    has && !cfg!(aes_backend = "soft")
}

/// What [`wipe`] may leave above what it wipes, as its frame is aligned: two cache lines.
const GAP_BYTES: usize = 128;

#[inline(never)]
fn below_a_gap<T>(work: impl FnOnce() -> T) -> T {
    let gap = MaybeUninit::<[u8; GAP_BYTES]>::uninit();
    optimization_barrier(&gap);
    in_a_frame_of_its_own(work)
}

#[inline(never)]
fn in_a_frame_of_its_own<T>(work: impl FnOnce() -> T) -> T {
    work()
}

/// As zeroize's `zeroize_stack`, but in whole cache lines: with cut ones it takes up to 30 ns more, as long as AES of a block.
#[inline(never)]
fn wipe<const BYTES: usize>() {
    // A variable, as a constant that is borrowed would be put into the library's data.
    let lines = Lines([0; BYTES]);
    optimization_barrier(&lines);
}

#[repr(align(64))]
struct Lines<const BYTES: usize>([u8; BYTES]);
