//! envelope_pg without PostgreSQL: value format, cipher suite, data key cache and key providers.
//!
//! - [`format`]: the bytes of a value, parsed and written; knows no cipher
//! - [`context`]: the KMS encryption context and its one canonical encoding
//! - [`keys`]: the key hierarchy, from the key that a statement names to the key that seals a value
//! - [`key_reference`]: how a value names the KMS key that wraps its data key
//! - [`xaes`]: the cipher XAES-256-GCM
//! - `gcm`: AES-256-GCM of short messages
//! - `stack`: the stack of a computation with secrets, wiped
//! - [`search`]: tokens that encrypted values are found by
//! - [`suite`]: suite 01: the cipher under a derived key, with key commitment
//! - [`value`]: whole values: format and suite together
//! - [`random`]: nonces from seeds of the kernel's
//! - [`cache`]: the bounded caches of data keys; time is a parameter
//! - [`allowed_keys`]: strict mode
//! - [`broker`]: one holder of data keys for all sessions of a server
//! - [`kms`]: the key providers behind one trait
//! - [`column_rule`]: what an encrypting trigger is told about a column
//! - [`error`]: what can go wrong with a value

#![forbid(unsafe_code)]

pub mod allowed_keys;
pub mod broker;
pub mod cache;
pub mod column_rule;
pub mod context;
pub mod error;
pub mod format;
mod gcm;
pub mod key_reference;
pub mod keys;
pub mod kms;
pub mod random;
pub mod search;
mod stack;
pub mod suite;
pub mod value;
pub mod xaes;
