//! The stack that a computation with secrets has used. What it put there – key schedules, copies that moves leave, registers
//! that were spilled – is wiped in one piece, which is faster and reaches more than wiping each variable.

use std::mem::MaybeUninit;

use zeroize::optimization_barrier;

/// More than AES-GCM uses, where the compiler inlines little.
pub const AEAD_BYTES: usize = 8 << 10;
/// More than twice what HKDF uses: tests look for what it leaves.
pub(crate) const HKDF_BYTES: usize = 4 << 10;
/// More than twice what key schedules and message keys use: each row may have one of its own, and to wipe 8 KiB would take a third of its time.
pub(crate) const BLOCK_CIPHER_BYTES: usize = 2 << 10;
/// More than sealing and opening use, from wherever a statement calls them.
const ALL_BYTES: usize = 64 << 10;

/// Does some work with keys, and wipes so much of the stack below. What it returns is the caller's.
#[inline(always)]
pub fn with_wiped_stack<const BYTES: usize, T>(work: impl FnOnce() -> T) -> T {
    let result = below_a_gap(work);
    wipe::<BYTES>();
    result
}

/// Wipes what sealing and opening values have left on the stack: hash keys of message keys, and what else AES-GCM computes for a
/// message. To wipe that after each value would take half as long as sealing a short one.
pub fn wipe_stack() {
    wipe::<ALL_BYTES>();
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
struct Lines<const BYTES: usize>(#[allow(dead_code, reason = "it is there to be written")] [u8; BYTES]);
