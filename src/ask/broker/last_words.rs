//! What the broker last said about itself, in a file beside its socket: for whoever watches the server while it does not answer.
//! Nothing secret; counts and key ids.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;

use envelope_broker::protocol::{self, LENGTH_BYTES, Response, Status, VERSION};
use envelope_kms::statistics::StatisticsSnapshot;
use once_cell::sync::Lazy;
use rustix::fs::OFlags;

static FILE: Lazy<String> = Lazy::new(|| format!("pg_stat_tmp/envelope_pg.{VERSION}.status"));
static NEXT: Lazy<String> = Lazy::new(|| format!("pg_stat_tmp/envelope_pg.{VERSION}.status.new"));

/// Writes both, if they can be written: only the broker itself may, under its lock.
pub(super) fn write(said: &(Status, StatisticsSnapshot)) {
    let _ = try_write(said.clone());
}

fn try_write((status, statistics): (Status, StatisticsSnapshot)) -> std::io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits() as i32)
        .open(NEXT.as_str())?;
    for response in [Response::Status(status), Response::Statistics(statistics)] {
        file.write_all(&protocol::encode_response(response))?;
    }
    drop(file);
    fs::rename(NEXT.as_str(), FILE.as_str())
}

/// There is no broker any more.
pub(super) fn remove() {
    let _ = fs::remove_file(FILE.as_str());
}

/// What it said about itself, and the counts of its calls.
pub fn read() -> Option<(Status, StatisticsSnapshot)> {
    let mut bytes = Vec::new();
    let limit = 2 * protocol::MAX_RESPONSE_BYTES as u64;
    fs::File::open(FILE.as_str()).ok()?.take(limit).read_to_end(&mut bytes).ok()?;
    let (status, rest) = next(&mut bytes)?;
    let (statistics, _) = next(rest)?;
    match (status, statistics) {
        (Response::Status(status), Response::Statistics(statistics)) => Some((status, statistics)),
        _ => None,
    }
}

/// The first response, and what is behind it.
fn next(bytes: &mut [u8]) -> Option<(Response, &mut [u8])> {
    // What announces a response, and its length.
    let (front, rest) = bytes.split_at_mut_checked(1 + LENGTH_BYTES)?;
    let length = u32::from_be_bytes(front[1..].try_into().ok()?) as usize;
    let (body, rest) = rest.split_at_mut_checked(length)?;
    Some((protocol::decode_response(body).ok()?, rest))
}
