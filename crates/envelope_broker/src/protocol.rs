//! The bytes on the broker's socket. A connection carries one command and its response, and then perhaps another one.
//!
//! ```text
//! session -> broker   u32 length, command                       length in big-endian
//! broker -> session   00 first of all, and every 250 ms         "I am alive"
//!                     01, u32 length, response
//!
//! command             postcard encoding of `Command`
//! response            u8 data keys (0 or 1), data key 32 if 1, postcard encoding of the rest
//! ```
//!
//! A plaintext data key never goes through a serializer: it stands in front of the rest, in buffers that are wiped.

use std::time::{Duration, SystemTime};

use envelope_core::keys::{Dek, KEY_BYTES, KeyId, WrappedKey};
use envelope_core::request::{ConsentAge, KmsError, Lease, OpeningGrant, Reply, Request, SealingGrant};
use envelope_kms::statistics::StatisticsSnapshot;
use envelope_kms::{Resolution, Settings};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

/// Changes with every change of these bytes. It is part of the socket's name, since after an upgrade the broker of the
/// library before goes on until the server ends.
pub const VERSION: u32 = 3;
/// Far above the largest command: a wrapped key and an encryption context of 64 KiB each.
pub const MAX_COMMAND_BYTES: usize = 256 * 1024;
/// Far above the largest response, which are the statistics.
pub const MAX_RESPONSE_BYTES: usize = 4 * 1024 * 1024;
/// "I am alive": the first byte of a connection, and then one every [`ALIVE_INTERVAL`] until the response is there.
pub const ALIVE: u8 = 0;
/// A response follows.
pub const RESPONSE: u8 = 1;
/// Bytes of a length field.
pub const LENGTH_BYTES: usize = 4;
/// Time between two signs of life.
pub const ALIVE_INTERVAL: Duration = Duration::from_millis(250);

/// What a session calls for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Command {
    /// Something about data keys.
    Ask {
        /// What.
        request: Request,
        /// The settings that the session knows: see [`fingerprint`].
        settings: u64,
        /// What the alias of the request stood for, as far as the session knows: a new broker does not.
        resolution: Option<Resolution>,
    },
    /// What the broker does.
    Status,
    /// The counts of its calls.
    Statistics,
    /// Counts from zero again.
    ResetStatistics,
    /// Ends the broker.
    Stop,
    /// Makes the next data keys of a key anew, in all encryption contexts.
    Retire(KeyId),
}

/// The response to a [`Command`].
pub enum Response {
    /// To [`Command::Ask`].
    Reply(Result<Reply, KmsError>),
    /// To [`Command::Status`].
    Status(Status),
    /// To [`Command::Statistics`].
    Statistics(StatisticsSnapshot),
    /// To the others.
    Done,
}

/// What the broker does.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Status {
    /// Its process id.
    pub pid: u32,
    /// When it began.
    pub started: SystemTime,
    /// Requests about data keys so far.
    pub requests: u64,
    /// Of these, how many needed no call to a key provider.
    pub answered_from_memory: u64,
    /// Connections that are open now, the one that asks among them.
    pub connections: u64,
    /// Data keys that it holds in plaintext.
    pub data_keys: u64,
    /// Pairs of a key and an encryption context that have a current data key.
    pub current_data_keys: u64,
    /// Data keys that were asked for ahead of a scan.
    pub unwrapped_ahead: u64,
    /// Circuit breakers that are open.
    pub open_breakers: u64,
    /// Memory of its own, in bytes; 0 if the system does not say.
    pub memory: u64,
    /// Calls that wait for their turn under the limit of calls in a second.
    pub waiting_calls: u64,
    /// About the memory that the data keys take.
    pub data_key_bytes: u64,
    /// Look-ups that found their data key in memory.
    pub cache_hits: u64,
    /// Look-ups that did not.
    pub cache_misses: u64,
    /// Data keys that had to go to make room.
    pub evictions: u64,
    /// Look-ups that did not find what had been evicted.
    pub evicted_needed: u64,
}

/// Bytes that are neither a command nor a response.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("malformed message")]
pub struct Malformed;

/// [`Response`] without the plaintext data key.
#[derive(Deserialize, Serialize)]
enum PublicResponse {
    Sealing { wrapped: WrappedKey, age: Duration, lease: Lease, consent: ConsentAge },
    Opening { key_id: String, consent: ConsentAge },
    Rewrapped(WrappedKey),
    Failed(KmsError),
    Status(Status),
    Statistics(StatisticsSnapshot),
    Done,
}

/// Says in short whether two processes know the same settings. The same for all processes of one library.
#[must_use]
pub fn fingerprint(settings: &Settings) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    settings.hash(&mut hasher);
    hasher.finish()
}

/// The bytes of a command, its length in front.
#[must_use]
pub fn encode_command(command: &Command) -> Vec<u8> {
    let body = postcard::to_allocvec(command).expect("all parts of a command can be serialized");
    [length(&body).as_slice(), &body].concat()
}

/// Reads a command, without its length.
///
/// # Errors
/// [`Malformed`], also if there are bytes behind it.
pub fn decode_command(bytes: &[u8]) -> Result<Command, Malformed> {
    decode(bytes)
}

/// The bytes of a response, with what stands in front of it.
#[must_use]
pub fn encode_response(response: Response) -> Zeroizing<Vec<u8>> {
    let (dek, public) = match response {
        Response::Reply(Ok(Reply::Sealing(SealingGrant { dek, wrapped, age, lease, consent }))) => {
            (Some(dek), PublicResponse::Sealing { wrapped, age, lease, consent })
        }
        Response::Reply(Ok(Reply::Opening(OpeningGrant { dek, key_id, consent }))) => {
            (Some(dek), PublicResponse::Opening { key_id, consent })
        }
        Response::Reply(Ok(Reply::Rewrapped(wrapped))) => (None, PublicResponse::Rewrapped(wrapped)),
        Response::Reply(Err(error)) => (None, PublicResponse::Failed(error)),
        Response::Status(status) => (None, PublicResponse::Status(status)),
        Response::Statistics(statistics) => (None, PublicResponse::Statistics(statistics)),
        Response::Done => (None, PublicResponse::Done),
    };
    let public = postcard::to_allocvec(&public).expect("all parts of a response can be serialized");
    // Room for all at once: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(1 + LENGTH_BYTES + 1 + KEY_BYTES + public.len()));
    let deks = u8::from(dek.is_some());
    bytes.push(RESPONSE);
    let body_bytes = 1 + usize::from(deks) * KEY_BYTES + public.len();
    bytes.extend(u32::try_from(body_bytes).expect("far below 4 GB").to_be_bytes());
    bytes.push(deks);
    if let Some(dek) = &dek {
        bytes.extend(dek.as_bytes());
    }
    bytes.extend(public);
    bytes
}

/// Reads a response, without its length, and wipes its data key.
///
/// # Errors
/// [`Malformed`], also if there are bytes behind it. Then all is wiped: nobody knows where a data key may be.
pub fn decode_response(bytes: &mut [u8]) -> Result<Response, Malformed> {
    read_response(bytes).inspect_err(|_| bytes.zeroize())
}

fn read_response(bytes: &mut [u8]) -> Result<Response, Malformed> {
    let (deks, rest) = bytes.split_first_mut().ok_or(Malformed)?;
    let (dek, public) = match deks {
        0 => (None, rest),
        1 => {
            let (dek, public) = rest.split_at_mut_checked(KEY_BYTES).ok_or(Malformed)?;
            (Dek::take_from(dek), public)
        }
        _ => return Err(Malformed),
    };
    match (decode(public)?, dek) {
        (PublicResponse::Sealing { wrapped, age, lease, consent }, Some(dek)) => {
            Ok(Response::Reply(Ok(Reply::Sealing(SealingGrant { dek, wrapped, age, lease, consent }))))
        }
        (PublicResponse::Opening { key_id, consent }, Some(dek)) => {
            Ok(Response::Reply(Ok(Reply::Opening(OpeningGrant { dek, key_id, consent }))))
        }
        (PublicResponse::Rewrapped(wrapped), None) => Ok(Response::Reply(Ok(Reply::Rewrapped(wrapped)))),
        (PublicResponse::Failed(error), None) => Ok(Response::Reply(Err(error))),
        (PublicResponse::Status(status), None) => Ok(Response::Status(status)),
        (PublicResponse::Statistics(statistics), None) => Ok(Response::Statistics(statistics)),
        (PublicResponse::Done, None) => Ok(Response::Done),
        _ => Err(Malformed),
    }
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Malformed> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        _ => Err(Malformed),
    }
}

fn length(body: &[u8]) -> [u8; LENGTH_BYTES] {
    u32::try_from(body.len()).expect("far below 4 GB").to_be_bytes()
}

#[cfg(test)]
mod tests;
