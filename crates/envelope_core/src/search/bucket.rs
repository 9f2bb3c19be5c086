//! Ranges of numbers and times: buckets of one width, counted from an origin.

use super::{SearchError, ValueKind};

/// How a range is cut into buckets. The unit is that of the type: 1, days, microseconds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Buckets {
    origin: i64,
    width: i64,
}

/// Buckets of a range, at the most.
pub const MOST_BUCKETS: u32 = 100_000;

/// A bucket of values of a type.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bucketed {
    pub(super) kind: ValueKind,
    pub(super) number: i64,
}

impl Buckets {
    /// Buckets of a width; the first value of one of them is the origin.
    ///
    /// # Errors
    /// [`SearchError::Width`].
    pub fn new(origin: i64, width: i64) -> Result<Self, SearchError> {
        if width > 0 { Ok(Self { origin, width }) } else { Err(SearchError::Width) }
    }

    /// The number of the bucket of a value: floor((value - origin) / width).
    ///
    /// # Errors
    /// [`SearchError::TooFar`].
    pub fn number(&self, value: i64) -> Result<i64, SearchError> {
        let distance = i128::from(value) - i128::from(self.origin);
        i64::try_from(distance.div_euclid(i128::from(self.width))).map_err(|_| SearchError::TooFar)
    }
}

impl Bucketed {
    /// A bucket by its number.
    #[must_use]
    pub fn new(kind: ValueKind, number: i64) -> Self {
        Self { kind, number }
    }

    /// The buckets of a range of one type, both ends included: none if it is empty.
    ///
    /// # Errors
    /// [`SearchError::BucketLimit`] for one that is not 1 to [`MOST_BUCKETS`], [`SearchError::TooManyBuckets`].
    pub fn range(first: Self, last: Self, limit: i64) -> Result<impl Iterator<Item = Self>, SearchError> {
        let valid = u32::try_from(limit).ok().filter(|limit| (1..=MOST_BUCKETS).contains(limit));
        let limit = valid.ok_or(SearchError::BucketLimit(limit))?;
        let needed = (i128::from(last.number) - i128::from(first.number) + 1).max(0).unsigned_abs();
        if needed > u128::from(limit) {
            return Err(SearchError::TooManyBuckets { needed, limit });
        }
        Ok((first.number..=last.number).map(move |number| Self { number, ..first }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_floors() {
        let buckets = Buckets::new(5, 10).unwrap();
        for (value, number) in [(5, 0), (14, 0), (15, 1), (4, -1), (-5, -1), (-6, -2)] {
            assert_eq!(buckets.number(value), Ok(number), "{value}");
        }
        assert_eq!(Buckets::new(i64::MIN, i64::MAX).unwrap().number(i64::MAX), Ok(2));
        assert_eq!(Buckets::new(i64::MIN, 1).unwrap().number(i64::MAX), Err(SearchError::TooFar));
        assert_eq!(Buckets::new(0, 0), Err(SearchError::Width));
        assert_eq!(Buckets::new(0, -1), Err(SearchError::Width));
    }

    #[test]
    fn a_range_has_both_ends_and_a_limit() {
        let numbers = |low, high, limit| {
            let bucket = |number| Bucketed::new(ValueKind::Bigint, number);
            Bucketed::range(bucket(low), bucket(high), limit)
                .map(|range| range.map(|one| one.number).collect::<Vec<_>>())
        };
        assert_eq!(numbers(-1, 1, 3), Ok(vec![-1, 0, 1]));
        assert_eq!(numbers(1, 0, 3), Ok(vec![]));
        assert_eq!(numbers(i64::MAX, i64::MAX, 1), Ok(vec![i64::MAX]));
        for limit in [i64::MIN, -1, 0, i64::from(MOST_BUCKETS) + 1] {
            assert_eq!(numbers(0, 0, limit), Err(SearchError::BucketLimit(limit)));
        }
        assert_eq!(numbers(0, 3, 3), Err(SearchError::TooManyBuckets { needed: 4, limit: 3 }));
        assert_eq!(numbers(i64::MIN, i64::MAX, 3), Err(SearchError::TooManyBuckets { needed: 1 << 64, limit: 3 }));
    }
}
