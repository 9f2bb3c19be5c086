//! What has no search token, and what a token cannot be made with. Nothing of a value is in it.

use thiserror::Error;

/// Why there is no token.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum SearchError {
    /// A text of a number that PostgreSQL does not write.
    #[error("not a number in its one form")]
    NotANumber,
    /// Infinity or NaN, which is in no bucket.
    #[error("infinity and NaN are in no bucket")]
    NotFinite,
    /// A needle with fewer characters than the shortest prefix that has a token: the characters of that one.
    #[error("search text is shorter than the shortest indexed prefix")]
    NeedleTooShort(u8),
    /// Not 1 to 6 ascending lengths of 3 to 8 characters.
    #[error("invalid prefix lengths")]
    PrefixLengths,
    /// Not 1 to 32 bits.
    #[error("invalid number of bits")]
    Bits(i64),
    /// Not above zero.
    #[error("width of a bucket must be positive")]
    Width,
    /// A number of a bucket that has more than 64 bits.
    #[error("value is too far from the origin of its buckets")]
    TooFar,
    /// A range of more buckets than the limit.
    #[error("range has more buckets than the limit")]
    TooManyBuckets {
        /// Buckets of the range.
        needed: u128,
        /// The limit.
        limit: u32,
    },
    /// Not 1 to the most that a call makes tokens of, which it holds in memory.
    #[error("invalid limit of buckets")]
    BucketLimit(i64),
    /// A text that is too long once it is normalised, or for the memory there is.
    #[error("normalized text is too long")]
    TooLong,
    /// Not a step of normalisation.
    #[error("unknown step of normalization")]
    Step,
    /// No distinct values, or more of them than rows.
    #[error("there must be at least one distinct value, and at least as many rows")]
    PlanOfNothing,
}
