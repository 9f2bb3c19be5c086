//! Random numbers that are the same in each run.

/// Random enough to mix things (xorshift), and the same in each run.
pub struct Random(u64);

impl Random {
    /// `seed` is not 0.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number from 0 to below a limit that is above 0.
    pub fn below<T: TryInto<u64> + TryFrom<u64>>(&mut self, limit: T) -> T {
        let limit = limit.try_into().unwrap_or_else(|_| panic!("a limit above 0"));
        T::try_from(self.number() % limit).unwrap_or_else(|_| panic!("it is below the limit"))
    }
}
