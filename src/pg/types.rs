//! What the catalog says of types.

use std::ffi::CStr;

use pgrx::pg_sys::{self, Oid};

use crate::pg::encoding::database_text;

/// The type that a domain is over, through all domains; any other type itself.
pub fn base_type(type_oid: Oid) -> Oid {
    // SAFETY: looks a type of the catalog up, and raises an error if there is none.
    unsafe { pg_sys::getBaseType(type_oid) }
}

/// The name of a type as SQL writes it, for errors.
pub fn type_name(type_oid: Oid) -> String {
    // SAFETY: returns a C string, for what is no type as well.
    database_text(unsafe { CStr::from_ptr(pg_sys::format_type_be(type_oid)) }.to_bytes())
}

/// The output function of a type.
pub fn output_function(type_oid: Oid) -> Oid {
    let (mut output, mut is_varlena) = (pg_sys::InvalidOid, false);
    // SAFETY: looks a type of the catalog up, and raises an error if there is none.
    unsafe { pg_sys::getTypeOutputInfo(type_oid, &mut output, &mut is_varlena) };
    output
}
