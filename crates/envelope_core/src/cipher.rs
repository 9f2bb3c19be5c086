//! The cipher, and what keeps its secrets from staying behind.
//!
//! - [`suite`]: suite 01: the cipher under a derived key, with key commitment
//! - [`xaes`]: the cipher XAES-256-GCM
//! - `gcm`: AES-256-GCM of short messages
//! - [`stack`]: the stack of a computation with secrets, wiped
//! - [`random`]: nonces from seeds of the kernel's

mod gcm;
pub mod random;
pub mod stack;
pub mod suite;
pub mod xaes;
