//! envelope_pg without PostgreSQL and without input and output: value format, cipher, data key cache and what a session asks
//! about data keys.
//!
//! - [`value_type`]: the SQL type that a value was encrypted from
//! - [`format`]: the bytes of a value, parsed and written; knows no cipher
//! - [`heap_page`]: the encrypted values on a page of a table
//! - [`context`]: the KMS encryption context and its one canonical encoding
//! - [`keys`]: the key hierarchy, from the key that a statement names to the key that seals a value
//! - [`search`]: tokens that encrypted values are found by
//! - [`cipher`]: the cipher suite
//! - [`value`]: whole values: format and suite together
//! - [`cache`]: the bounded caches of data keys; time is a parameter
//! - [`policy`]: when a session may use a data key, and when it has to ask; no I/O, time is a parameter
//! - [`allowed_keys`]: strict mode
//! - [`request`]: what a session asks about data keys, and what it is answered
//! - [`column_rule`]: what an encrypting trigger is told about a column
//! - [`error`]: what can go wrong with a value

#![forbid(unsafe_code)]

pub mod allowed_keys;
pub mod cache;
pub mod cipher;
pub mod column_rule;
pub mod context;
pub mod error;
pub mod format;
pub mod heap_page;
pub mod keys;
pub mod policy;
pub mod request;
pub mod search;
pub mod value;
pub mod value_type;
