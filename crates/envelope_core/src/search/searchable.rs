//! The one encoding of each value of each type: what PostgreSQL compares as equal has equal bytes, in every session.

use std::borrow::Cow;

use super::SearchError;

/// The type of a value, as it goes into a token. The numbers of `bytea` and `text` are those of the value format.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum ValueKind {
    /// The bytes.
    Bytea = 0,
    /// The text in UTF-8.
    Text = 1,
    /// 8 bytes, two's complement, most significant byte first.
    Bigint = 3,
    /// Decimal text without an exponent and without zeros that say nothing; `NaN`, `Infinity`, `-Infinity`.
    Numeric = 4,
    /// Days since 2000-01-01, as a 4-byte integer; the smallest and the largest one are -infinity and infinity.
    Date = 5,
    /// Microseconds since 2000-01-01 00:00 UTC, as an 8-byte integer; the smallest and the largest one are -infinity and infinity.
    Timestamptz = 6,
    /// 16 bytes.
    Uuid = 7,
}

/// A value in its one encoding.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Searchable<'a> {
    pub(super) kind: ValueKind,
    pub(super) bytes: Encoding<'a>,
}

/// Short encodings stay where they are made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Encoding<'a> {
    Bytes(Cow<'a, [u8]>),
    Four([u8; 4]),
    Eight([u8; 8]),
}

impl Encoding<'_> {
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Four(bytes) => bytes,
            Self::Eight(bytes) => bytes,
        }
    }
}

impl<'a> Searchable<'a> {
    /// A bytea.
    #[must_use]
    pub fn bytea(bytes: &'a [u8]) -> Self {
        Self { kind: ValueKind::Bytea, bytes: Encoding::Bytes(bytes.into()) }
    }

    /// A text in UTF-8.
    #[must_use]
    pub fn text(utf8: impl Into<Cow<'a, [u8]>>) -> Self {
        Self { kind: ValueKind::Text, bytes: Encoding::Bytes(utf8.into()) }
    }

    /// A smallint, integer or bigint.
    #[must_use]
    pub fn bigint(number: i64) -> Self {
        Self { kind: ValueKind::Bigint, bytes: Encoding::Eight(number.to_be_bytes()) }
    }

    /// A numeric, by the text that PostgreSQL writes: 1.0 and 1.00 are the same.
    ///
    /// # Errors
    /// [`SearchError::NotANumber`] for what PostgreSQL does not write, such as a negative zero or an exponent.
    pub fn numeric(text: &'a str) -> Result<Self, SearchError> {
        let shortest = shortest_decimal(text).ok_or(SearchError::NotANumber)?;
        Ok(Self { kind: ValueKind::Numeric, bytes: Encoding::Bytes(shortest.as_bytes().into()) })
    }

    /// A date: days since 2000-01-01.
    #[must_use]
    pub fn date(days: i32) -> Self {
        Self { kind: ValueKind::Date, bytes: Encoding::Four(days.to_be_bytes()) }
    }

    /// A timestamp with time zone: microseconds since 2000-01-01 00:00 UTC.
    #[must_use]
    pub fn timestamptz(microseconds: i64) -> Self {
        Self { kind: ValueKind::Timestamptz, bytes: Encoding::Eight(microseconds.to_be_bytes()) }
    }

    /// A uuid.
    #[must_use]
    pub fn uuid(bytes: &'a [u8; 16]) -> Self {
        Self { kind: ValueKind::Uuid, bytes: Encoding::Bytes(bytes[..].into()) }
    }

    /// Its type.
    #[must_use]
    pub fn kind(&self) -> ValueKind {
        self.kind
    }

    /// Its encoding.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }
}

/// A decimal number without zeros at the end of its fraction; `None` unless it is one that PostgreSQL writes.
fn shortest_decimal(text: &str) -> Option<&str> {
    if matches!(text, "NaN" | "Infinity" | "-Infinity") {
        return Some(text);
    }
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = match unsigned.split_once('.') {
        Some((_, "")) => return None,
        Some((whole, fraction)) => (whole, fraction),
        None => (unsigned, ""),
    };
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_whole = !whole.is_empty() && are_digits(whole) && (whole == "0" || !whole.starts_with('0'));
    if !is_whole || !are_digits(fraction) {
        return None;
    }
    let shortest = if fraction.is_empty() { text } else { text.trim_end_matches('0').trim_end_matches('.') };
    (shortest != "-0").then_some(shortest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_numbers_have_equal_bytes() {
        for (text, bytes) in [
            ("1", "1"),
            ("1.0", "1"),
            ("1.00", "1"),
            ("100", "100"),
            ("100.10", "100.1"),
            ("-0.50", "-0.5"),
            ("0", "0"),
            ("0.00", "0"),
            ("10.00", "10"),
            ("NaN", "NaN"),
            ("-Infinity", "-Infinity"),
        ] {
            assert_eq!(Searchable::numeric(text).unwrap().as_bytes(), bytes.as_bytes(), "{text}");
        }
    }

    #[test]
    fn refuses_what_postgresql_does_not_write() {
        for text in
            ["", "-", "-0", "-0.0", "-0.00", "1e5", "01", "1.", ".5", "+1", " 1", "1,0", "inf", "0x1", "1.-", "--1"]
        {
            assert_eq!(Searchable::numeric(text), Err(SearchError::NotANumber), "{text}");
        }
    }

    #[test]
    fn types_do_not_meet() {
        assert_ne!(Searchable::text(&b"1"[..]), Searchable::numeric("1").unwrap());
        assert_ne!(Searchable::text(&b"1"[..]), Searchable::bytea(b"1"));
        assert_ne!(Searchable::bigint(7), Searchable::timestamptz(7));
    }
}
