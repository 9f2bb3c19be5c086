//! The SQL type that a value was encrypted from.

use std::fmt;

/// The SQL type that a value was encrypted from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum ValueType {
    /// Bytes as they are.
    Bytea = 0,
    /// UTF-8.
    Text = 1,
    /// JSON text in UTF-8.
    Jsonb = 2,
}

impl ValueType {
    /// The type of a byte in a value.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Bytea),
            1 => Some(Self::Text),
            2 => Some(Self::Jsonb),
            _ => None,
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Bytea => "bytea",
            Self::Text => "text",
            Self::Jsonb => "jsonb",
        })
    }
}
