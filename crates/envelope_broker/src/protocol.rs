//! The bytes on the broker's socket. A connection carries one command and its response, and then perhaps another one.
//!
//! ```text
//! session -> broker   u32 length, command                       length in big-endian
//! broker -> session   00 first of all, and every 250 ms         "I am alive"
//!                     01, u32 length, response
//!
//! command             postcard encoding of `Command`
//! response            u8 data keys, 32 bytes for each, postcard encoding of the rest
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
pub const VERSION: u32 = 4;
/// Far above the largest command: a wrapped key and an encryption context of 64 KiB each.
pub const MAX_COMMAND_BYTES: usize = 256 * 1024;
/// Far above the largest response, which are the statistics.
pub const MAX_RESPONSE_BYTES: usize = 4 * 1024 * 1024;
/// Requests of one command.
pub const MAX_REQUESTS: usize = 16;
/// "I am alive": the first byte of a connection, and then one every [`ALIVE_INTERVAL`] until the response is there.
pub const ALIVE: u8 = 0;
/// A response follows.
pub const RESPONSE: u8 = 1;
/// Bytes of a length field.
pub const LENGTH_BYTES: usize = 4;
/// Most messages have fewer.
const USUAL_BYTES: usize = 512;
/// Time between two signs of life.
pub const ALIVE_INTERVAL: Duration = Duration::from_millis(250);

/// What a session calls for. Its requests are the session's own, borrowed, until the broker reads them.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Command<R = Request> {
    /// Something about data keys.
    Ask {
        /// What.
        request: R,
        /// The settings that the session knows: see [`fingerprint`].
        settings: u64,
        /// What the alias of the request stood for, as far as the session knows: a new broker does not.
        resolution: Option<Resolution>,
    },
    /// Several things at once, where the way to the broker and back takes longer than its answer from memory.
    AskMany {
        /// What, [`MAX_REQUESTS`] at most.
        requests: Vec<R>,
        /// As for [`Command::Ask`].
        settings: u64,
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
    /// To [`Command::AskMany`], in the order of the requests.
    Replies(Vec<Result<Reply, KmsError>>),
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

/// A reply without the plaintext data key.
#[derive(Deserialize, Serialize)]
enum PublicReply {
    Sealing { wrapped: WrappedKey, age: Duration, lease: Lease, consent: ConsentAge },
    Opening { key_id: String, consent: ConsentAge },
    Rewrapped(WrappedKey),
    Failed(KmsError),
}

/// [`Response`] without the plaintext data keys.
#[derive(Deserialize, Serialize)]
enum PublicResponse {
    Reply(PublicReply),
    Replies(Vec<PublicReply>),
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
pub fn encode_command<R: Serialize>(command: &Command<R>) -> Vec<u8> {
    let mut bytes = serialize(command, LENGTH_BYTES);
    let length = length(&bytes[LENGTH_BYTES..]);
    bytes[..LENGTH_BYTES].copy_from_slice(&length);
    bytes
}

/// Reads a command, without its length.
///
/// # Errors
/// [`Malformed`], also if there are bytes behind it.
pub fn decode_command(bytes: &[u8]) -> Result<Command, Malformed> {
    match decode(bytes)? {
        Command::AskMany { requests, .. } if requests.len() > MAX_REQUESTS => Err(Malformed),
        command => Ok(command),
    }
}

/// The bytes of a response, with what stands in front of it.
///
/// # Panics
/// If there are more than 255 replies.
#[must_use]
pub fn encode_response(response: Response) -> Zeroizing<Vec<u8>> {
    let mut deks = Vec::new();
    let response = match response {
        Response::Reply(reply) => PublicResponse::Reply(without_dek(reply, &mut deks)),
        Response::Replies(replies) => {
            PublicResponse::Replies(replies.into_iter().map(|reply| without_dek(reply, &mut deks)).collect())
        }
        Response::Status(status) => PublicResponse::Status(status),
        Response::Statistics(statistics) => PublicResponse::Statistics(statistics),
        Response::Done => PublicResponse::Done,
    };
    let public = serialize(&response, 0);
    let body_bytes = 1 + deks.len() * KEY_BYTES + public.len();
    // Room for all at once: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(1 + LENGTH_BYTES + body_bytes));
    bytes.push(RESPONSE);
    bytes.extend(u32::try_from(body_bytes).expect("far below 4 GB").to_be_bytes());
    bytes.push(u8::try_from(deks.len()).expect("a command has few requests"));
    for dek in &deks {
        bytes.extend(dek.as_bytes());
    }
    bytes.extend(public);
    bytes
}

/// What goes through a serializer; the data key is put aside.
fn without_dek(reply: Result<Reply, KmsError>, deks: &mut Vec<Dek>) -> PublicReply {
    match reply {
        Ok(Reply::Sealing(SealingGrant { dek, wrapped, age, lease, consent })) => {
            deks.push(dek);
            PublicReply::Sealing { wrapped, age, lease, consent }
        }
        Ok(Reply::Opening(OpeningGrant { dek, key_id, consent })) => {
            deks.push(dek);
            PublicReply::Opening { key_id, consent }
        }
        Ok(Reply::Rewrapped(wrapped)) => PublicReply::Rewrapped(wrapped),
        Err(error) => PublicReply::Failed(error),
    }
}

/// Reads a response, without its length, and wipes its data keys.
///
/// # Errors
/// [`Malformed`], also if there are bytes behind it. Then all is wiped: nobody knows where a data key may be.
pub fn decode_response(bytes: &mut [u8]) -> Result<Response, Malformed> {
    read_response(bytes).inspect_err(|_| bytes.zeroize())
}

fn read_response(bytes: &mut [u8]) -> Result<Response, Malformed> {
    let (count, rest) = bytes.split_first_mut().ok_or(Malformed)?;
    let (deks, public) = rest.split_at_mut_checked(usize::from(*count) * KEY_BYTES).ok_or(Malformed)?;
    let deks: Vec<_> = deks.chunks_exact_mut(KEY_BYTES).filter_map(Dek::take_from).collect();
    let mut deks = deks.into_iter();
    let response = match decode(public)? {
        PublicResponse::Reply(reply) => Response::Reply(with_dek(reply, &mut deks)?),
        PublicResponse::Replies(replies) => {
            let replies = replies.into_iter().map(|reply| with_dek(reply, &mut deks));
            Response::Replies(replies.collect::<Result<_, _>>()?)
        }
        PublicResponse::Status(status) => Response::Status(status),
        PublicResponse::Statistics(statistics) => Response::Statistics(statistics),
        PublicResponse::Done => Response::Done,
    };
    if deks.next().is_some() { Err(Malformed) } else { Ok(response) }
}

/// A reply with its data key, which is the next one.
fn with_dek(reply: PublicReply, deks: &mut impl Iterator<Item = Dek>) -> Result<Result<Reply, KmsError>, Malformed> {
    let mut next = || deks.next().ok_or(Malformed);
    Ok(match reply {
        PublicReply::Sealing { wrapped, age, lease, consent } => {
            Ok(Reply::Sealing(SealingGrant { dek: next()?, wrapped, age, lease, consent }))
        }
        PublicReply::Opening { key_id, consent } => Ok(Reply::Opening(OpeningGrant { dek: next()?, key_id, consent })),
        PublicReply::Rewrapped(wrapped) => Ok(Reply::Rewrapped(wrapped)),
        PublicReply::Failed(error) => Err(error),
    })
}

/// Behind room for what stands in front of it.
fn serialize(message: &impl Serialize, front_bytes: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(front_bytes + USUAL_BYTES);
    bytes.resize(front_bytes, 0);
    postcard::to_extend(message, bytes).expect("all parts of a message can be serialized")
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
