//! The cipher, and what keeps its secrets from staying behind.
//!
//! - [`suite`]: suite 01: the cipher under a derived key, with key commitment
//! - [`xaes`]: the cipher XAES-256-GCM
//! - [`message_keys`]: keys derived by the cipher, each for a batch of values
//! - [`random`]: nonces from seeds of the kernel's

pub mod message_keys;
pub mod random;
pub mod suite;
pub mod xaes;
