//! Search tokens: what stands beside an encrypted value so that PostgreSQL's own indexes find it, and nothing of it can be read.
//!
//! ```text
//! index key        a data key whose encryption context says that it is one, which index, and which version
//!   -> sub-key     HKDF-SHA-256(index key, salt = "", info = "envelope_pg index v1" || 00 || kind || u16 length || name || u32 version)
//!     -> token     HMAC-SHA-256(sub-key, type || value), cut to its length                 RFC 2104, RFC 5869
//! ```
//!
//! - [`IndexKey`]: the key, and the tokens that it makes
//! - [`Searchable`]: the one encoding of each value of each type
//! - [`Step`]: normalisation of text
//! - [`Buckets`]: ranges of numbers and times
//! - [`TokenRule`]: what an encrypting trigger is told about a token column
//! - [`Plan`]: how many bits a token of few distinct values has, and what that costs
//! - [`SearchError`]: what has no token

mod bucket;
mod error;
mod index_key;
mod normalize;
mod plan;
pub(crate) mod rule;
mod searchable;

pub use bucket::{Bucketed, Buckets, MOST_BUCKETS};
pub use error::SearchError;
pub use index_key::{IndexKey, PURPOSE, PrefixLengths, TOKEN_BYTES, TokenBits};
pub use normalize::{Step, normalize};
pub use plan::Plan;
pub use rule::{TokenKind, TokenRule};
pub use searchable::{Searchable, ValueKind};
