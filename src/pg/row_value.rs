//! Values of a row, each with the type of its column. What is read of them by type is checked against that.

use std::borrow::Cow;
use std::ffi::CStr;
use std::marker::PhantomData;

use pgrx::pg_sys::{self, Datum, FormData_pg_attribute, Oid};

use crate::error::Error;
use crate::pg::made::Made;
use crate::pg::typed::Plaintext;
use crate::pg::types::{base_type, output_function};
use crate::pg::varlena::VarlenaDatum;

/// How the plaintext of a column's values is read.
#[derive(Clone, Copy)]
pub struct ColumnPlaintext {
    column_type: Oid,
    plaintext: Plaintext,
}

impl ColumnPlaintext {
    /// That of columns of a type; `None` as for [`Plaintext::of_type`].
    pub fn of_type(column_type: Oid) -> Option<Self> {
        Plaintext::of_type(base_type(column_type)).map(|plaintext| Self { column_type, plaintext })
    }

    /// What values of the type are encrypted as.
    pub fn kind(self) -> Plaintext {
        self.plaintext
    }
}

/// The output function of a column's type.
#[derive(Clone, Copy)]
pub struct ColumnOutput {
    column_type: Oid,
    function: Oid,
}

impl ColumnOutput {
    /// That of columns of a type.
    pub fn of_type(column_type: Oid) -> Self {
        Self { column_type, function: output_function(column_type) }
    }
}

/// A live value of a row that is not NULL.
#[derive(Clone, Copy)]
pub struct RowValue<'a> {
    datum: Datum,
    column_type: Oid,
    is_varlena: bool,
    lifetime: PhantomData<&'a [u8]>,
}

impl<'a> RowValue<'a> {
    /// # Safety
    /// `datum` is a value of this column, is not NULL, and neither it nor what is made of it in the current memory context goes
    /// before `'a` ends.
    pub unsafe fn new(datum: Datum, attribute: &FormData_pg_attribute) -> Self {
        let (column_type, is_varlena) = (attribute.atttypid, attribute.attlen == -1);
        Self { datum, column_type, is_varlena, lifetime: PhantomData }
    }

    /// A value of a type of variable length.
    ///
    /// # Panics
    /// If the column is of no such type.
    pub fn varlena(self) -> VarlenaDatum<'a> {
        assert!(self.is_varlena, "a column of a type of variable length");
        // SAFETY: of variable length, as was asserted, and as live as `new` was promised.
        unsafe { VarlenaDatum::new(self.datum) }
    }

    /// The plaintext, in the database's encoding.
    ///
    /// # Errors
    /// If it is no text in the database's encoding.
    ///
    /// # Panics
    /// If `how` is of another type than the column.
    pub fn plaintext(self, how: ColumnPlaintext) -> Result<Cow<'a, [u8]>, Error> {
        assert!(how.column_type == self.column_type, "how values of the column's type are read");
        // SAFETY: a value of the type, as was asserted, and as live as `new` was promised.
        unsafe { how.plaintext.bytes(self.datum) }
    }

    /// The text, in the database's encoding.
    ///
    /// # Panics
    /// If `output` is of another type than the column.
    pub fn output_text(self, output: ColumnOutput) -> &'a [u8] {
        assert!(output.column_type == self.column_type, "the output function of the column's type");
        // SAFETY: the output function of the value's type, as was asserted. It returns a C string in the current memory context,
        // which `new` speaks of.
        unsafe { CStr::from_ptr(pg_sys::OidOutputFunctionCall(output.function, self.datum)) }.to_bytes()
    }
}

/// Checks what becomes a value of a domain, or NULL. Raises PostgreSQL's error.
///
/// # Panics
/// If the value is not of the domain's base type.
pub fn check_domain(domain: Oid, value: Option<&Made>) {
    let value_or_zero = value.map_or(Datum::null(), |value| value.datum_of_type(domain));
    // SAFETY: a value of the domain's base type, or NULL; what is no domain raises an error. What is looked up for the check
    // lives as long as the call.
    unsafe {
        let no_cache = std::ptr::null_mut();
        pg_sys::domain_check(value_or_zero, value.is_none(), domain, no_cache, pg_sys::CurrentMemoryContext);
    }
}
