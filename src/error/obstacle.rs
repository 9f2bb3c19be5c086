//! What keeps a table from being scanned, as `env_inventory` shows it.

use std::fmt;

/// Why a table cannot be scanned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Obstacle {
    /// It is gone.
    Gone,
    /// It is no table or materialized view (any more).
    NotATable,
    /// The current user may not read all of it.
    NoSelect,
    /// Row-level security hides rows from the current user.
    RowSecurity,
    /// A column is gone, of another type than bytea or a domain over it, or not stored.
    Column,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Gone => "it is gone",
            Self::NotATable => "it is not a table",
            Self::NoSelect => "no SELECT on the table",
            Self::RowSecurity => "row-level security hides rows",
            Self::Column => "a column is gone or of another type",
        })
    }
}
