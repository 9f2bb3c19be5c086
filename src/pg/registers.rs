//! The vector registers, in which AES leaves round keys: a signal that comes later writes all of them to the stack.

/// Overwrites them. Nothing where the processor has none of more than 128 bits.
pub fn clear() {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has these registers, which a function may change by the calling convention, and the compiler is told.
            unsafe {
                std::arch::asm!(
                    "vpxorq zmm16, zmm16, zmm16",
                    "vpxorq zmm17, zmm17, zmm17",
                    "vpxorq zmm18, zmm18, zmm18",
                    "vpxorq zmm19, zmm19, zmm19",
                    "vpxorq zmm20, zmm20, zmm20",
                    "vpxorq zmm21, zmm21, zmm21",
                    "vpxorq zmm22, zmm22, zmm22",
                    "vpxorq zmm23, zmm23, zmm23",
                    "vpxorq zmm24, zmm24, zmm24",
                    "vpxorq zmm25, zmm25, zmm25",
                    "vpxorq zmm26, zmm26, zmm26",
                    "vpxorq zmm27, zmm27, zmm27",
                    "vpxorq zmm28, zmm28, zmm28",
                    "vpxorq zmm29, zmm29, zmm29",
                    "vpxorq zmm30, zmm30, zmm30",
                    "vpxorq zmm31, zmm31, zmm31",
                    clobber_abi("sysv64"),
                    options(nomem, nostack)
                );
            }
        }
        if is_x86_feature_detected!("avx") {
            // SAFETY: as above.
            unsafe { std::arch::asm!("vzeroall", clobber_abi("sysv64"), options(nomem, nostack)) };
        }
    }
}
