//! What has no search token, as a PostgreSQL error.

use envelope_core::search::{MOST_BUCKETS, SearchError};

/// SQLSTATE, DETAIL and HINT of what has no token.
pub fn parts(error: &SearchError) -> (&'static str, Option<String>, &'static str) {
    let invalid = "22023";
    match error {
        SearchError::NotANumber => (invalid, None, "Use what PostgreSQL writes for a numeric."),
        SearchError::NotFinite => (
            invalid,
            None,
            "Infinity can be found by env_blind_index; leave it out of the range with a WHERE or a CASE.",
        ),
        SearchError::NeedleTooShort(shortest) => (
            invalid,
            Some(format!("The shortest indexed prefix has {shortest} characters.")),
            "It could be in any row. Ask for more characters, or filter by decrypting.",
        ),
        SearchError::PrefixLengths => (
            invalid,
            None,
            "Give ascending lengths of 3 to 8 characters, such as '{3,4,5}', the same for values and for searches.",
        ),
        SearchError::Bits(bits) => (
            invalid,
            Some(format!("{bits} were given.")),
            "A short token has 1 to 32 bits; env_index_plan says how many.",
        ),
        SearchError::Width => (invalid, None, "Give a width above zero; an interval without months or years."),
        SearchError::TooFar => ("22003", None, "Choose wider buckets, or another origin."),
        SearchError::TooManyBuckets { needed, limit } => (
            "54000",
            Some(format!("It has {needed}, and max_buckets is {limit}.")),
            "Choose wider buckets or a smaller range, or raise max_buckets.",
        ),
        SearchError::BucketLimit(limit) => (
            invalid,
            Some(format!("The limit is {limit}; it must be 1 to {MOST_BUCKETS}.")),
            "Choose wider buckets, so that a range has fewer.",
        ),
        SearchError::TooLong => ("54000", None, "PostgreSQL has no values above 1 GB."),
        SearchError::Step => (invalid, None, "The steps are lower, nfkc, trim, digits and email."),
        SearchError::PlanOfNothing => {
            (invalid, None, "Count them: SELECT count(DISTINCT column), count(column) FROM table.")
        }
    }
}
