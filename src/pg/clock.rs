//! The clock that is read for each value: as often as that it would cost more than all else but the cipher.

use std::time::{Duration, Instant};

thread_local! {
    /// The same moment by both clocks.
    static START: (Instant, Duration) = (Instant::now(), coarse());
}

/// The time, up to a tick of the kernel's clock behind (4 ms on most kernels): what is compared with seconds need not know it
/// better, and the precise clock takes three times as long.
pub fn now() -> Instant {
    START.with(|(start, coarse_start)| *start + coarse().saturating_sub(*coarse_start))
}

/// Of the same clock as [`Instant`], which is CLOCK_MONOTONIC (clock_gettime(2)).
fn coarse() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it writes to `time`, and fails only for a clock that the kernel does not have, which leaves 0.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
