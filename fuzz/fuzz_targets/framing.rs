//! What comes in pieces is read as if it came at once: for both ends of the broker's protocol.

#![no_main]

use envelope_broker::framing::{AnswerReader, CallReader};
use envelope_broker::protocol::{Malformed, encode_answer, encode_call};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [piece_bytes, stream @ ..] = input else { return };
    let piece_bytes = usize::from(*piece_bytes).max(1);
    let call = |piece_bytes| {
        let mut reader = CallReader::new();
        read(stream, piece_bytes, &mut reader, CallReader::buffer, CallReader::filled)
            .map(|call| call.map(|call| encode_call(&call)))
    };
    assert_eq!(call(piece_bytes), call(usize::MAX));
    let answer = |piece_bytes| {
        let mut reader = AnswerReader::new();
        read(stream, piece_bytes, &mut reader, AnswerReader::buffer, AnswerReader::filled)
            .map(|answer| answer.map(encode_answer))
    };
    assert!(answer(piece_bytes) == answer(usize::MAX));
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
