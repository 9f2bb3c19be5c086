//! Values that are made here, to be stored in a row.

use pgrx::pg_sys::{self, Datum, Oid};

use crate::error::Error;
use crate::pg::result::bytea_array_datum;
use crate::pg::types::base_type;
use crate::pg::varlena::{Varlena, VarlenaDatum};

/// A value of a type that is known, in the memory context that was current when it was made.
pub struct Made {
    datum: Datum,
    type_oid: Oid,
}

impl Made {
    /// A bytea, of which `bytes` bytes were written.
    pub fn bytea(written: Varlena, bytes: usize) -> Self {
        Self { datum: written.finish(bytes), type_oid: pg_sys::BYTEAOID }
    }

    /// A bytea of a copy of some bytes.
    ///
    /// # Errors
    /// As [`Varlena::copy_of`].
    pub fn bytea_of(bytes: &[u8]) -> Result<Self, Error> {
        Ok(Self { datum: Varlena::copy_of(bytes)?, type_oid: pg_sys::BYTEAOID })
    }

    /// A bytea[].
    ///
    /// # Errors
    /// As [`Varlena::copy_of`].
    pub fn bytea_array<'a>(elements: impl Iterator<Item = &'a [u8]>) -> Result<Self, Error> {
        Ok(Self { datum: bytea_array_datum(elements)?, type_oid: pg_sys::BYTEAARRAYOID })
    }

    /// The value as it is stored.
    pub fn varlena(&self) -> VarlenaDatum<'_> {
        // SAFETY: bytea and bytea[] are of variable length, and the value lives as long as the call that it was made in.
        unsafe { VarlenaDatum::new(self.datum) }
    }

    /// For PostgreSQL.
    pub fn datum(&self) -> Datum {
        self.datum
    }

    /// The value for a column or a domain of a type, which is the value's own or a domain over it.
    ///
    /// # Panics
    /// If it is another.
    pub fn datum_of_type(&self, type_oid: Oid) -> Datum {
        assert!(type_oid == self.type_oid || base_type(type_oid) == self.type_oid, "a value of the column's type");
        self.datum
    }
}
