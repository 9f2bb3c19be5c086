//! The SQL function that checks the options of a named key.

use envelope_core::keys::named::NamedKey;
use pgrx::pg_sys::{self, Datum, Oid};

use crate::error::{Error, NamedKeyError};
use crate::pg::foreign_servers;
use crate::pg::function_call::{FunctionCall, sql_functions};

sql_functions! {
    env_named_key_validator, pg_finfo_env_named_key_validator => validate;
}

/// PostgreSQL refuses NULL from a validator, whatever type it says that it returns.
const VOID: Option<Datum> = Some(Datum::null());

/// PostgreSQL calls it for whatever is made of the wrapper: options, and the catalog that they are for.
fn validate(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let catalog = call.datum(1).map(|catalog| Oid::from(catalog.value() as u32));
    let options = foreign_servers::validated_options(call, 0)?;
    let refused = match catalog {
        Some(pg_sys::ForeignServerRelationId) => {
            let options = options.iter().map(|(option, value)| (option.as_str(), value.as_str()));
            return NamedKey::from_options(options).map(|_| VOID).map_err(|error| NamedKeyError::Invalid(error).into());
        }
        Some(pg_sys::ForeignTableRelationId) => "tables",
        Some(pg_sys::UserMappingRelationId) => "user mappings",
        _ if options.is_empty() => return Ok(VOID),
        _ => "options of its wrapper",
    };
    Err(NamedKeyError::NotAServer(refused).into())
}
