//! The stack that a computation with secrets has used. What it put there – key schedules, copies that moves leave, registers
//! that were spilled – is wiped in one piece, which is faster and reaches more than wiping each variable.

use zeroize::zeroize_stack;

/// Does some work that uses less than `BYTES` of stack, and wipes them. What it returns is the caller's.
#[inline(always)]
pub fn with_wiped_stack<const BYTES: usize, T>(work: impl FnOnce() -> T) -> T {
    let result = in_a_frame_of_its_own(work);
    zeroize_stack::<BYTES>();
    result
}

#[inline(never)]
fn in_a_frame_of_its_own<T>(work: impl FnOnce() -> T) -> T {
    work()
}
