//! What comes in pieces is read as if it came at once: for both ends of the broker's protocol.

#![no_main]

use envelope_broker::framing::{CommandReader, ResponseReader};
use envelope_broker::protocol::{Malformed, encode_command, encode_response};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [piece_bytes, stream @ ..] = input else { return };
    let piece_bytes = usize::from(*piece_bytes).max(1);
    let command = |reader: &mut CommandReader, piece: &[u8]| {
        reader.take(piece).map(|command| command.map(|command| encode_command(&command)))
    };
    let (mut pieces, mut whole) = (CommandReader::new(), CommandReader::new());
    let (read, bytes) = read(stream, piece_bytes, |piece| command(&mut pieces, piece));
    assert_eq!(command(&mut whole, &stream[..bytes]), read);
    let response = |reader: &mut ResponseReader, piece: &[u8]| {
        reader.take(piece).map(|response| response.map(encode_response))
    };
    let (mut pieces, mut whole) = (ResponseReader::new(), ResponseReader::new());
    let (read, bytes) = self::read(stream, piece_bytes, |piece| response(&mut pieces, piece));
    // Secrets have no Debug.
    assert!(response(&mut whole, &stream[..bytes]) == read);
});

/// Up to a message or an error, and how many bytes that took.
fn read<T>(
    stream: &[u8],
    piece_bytes: usize,
    mut take: impl FnMut(&[u8]) -> Result<Option<T>, Malformed>,
) -> (Result<Option<T>, Malformed>, usize) {
    let mut bytes = 0;
    for piece in stream.chunks(piece_bytes) {
        bytes += piece.len();
        let taken = take(piece);
        if !matches!(taken, Ok(None)) {
            return (taken, bytes);
        }
    }
    (Ok(None), bytes)
}
