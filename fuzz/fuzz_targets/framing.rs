//! What comes in pieces is read as if it came at once: for both ends of the broker's protocol.

#![no_main]

use envelope_broker::framing::{ResponseReader, CommandReader};
use envelope_broker::protocol::{Malformed, encode_response, encode_command};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [piece_bytes, stream @ ..] = input else { return };
    let piece_bytes = usize::from(*piece_bytes).max(1);
    let command = |piece_bytes| {
        let mut reader = CommandReader::new();
        read(stream, piece_bytes, &mut reader, CommandReader::buffer, CommandReader::filled)
            .map(|command| command.map(|command| encode_command(&command)))
    };
    assert_eq!(command(piece_bytes), command(usize::MAX));
    let response = |piece_bytes| {
        let mut reader = ResponseReader::new();
        read(stream, piece_bytes, &mut reader, ResponseReader::buffer, ResponseReader::filled)
            .map(|response| response.map(encode_response))
    };
    assert!(response(piece_bytes) == response(usize::MAX));
});

fn read<T, R>(
    mut stream: &[u8],
    piece_bytes: usize,
    reader: &mut R,
    buffer: impl Fn(&mut R) -> &mut [u8],
    filled: impl Fn(&mut R, usize) -> Result<Option<T>, Malformed>,
) -> Result<Option<T>, Malformed> {
    while !stream.is_empty() {
        let room = buffer(reader);
        assert!(!room.is_empty(), "a reader always has room");
        let count = room.len().min(piece_bytes).min(stream.len());
        room[..count].copy_from_slice(&stream[..count]);
        stream = &stream[count..];
        if let Some(message) = filled(reader, count)? {
            return Ok(Some(message));
        }
    }
    Ok(None)
}
