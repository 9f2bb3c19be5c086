//! Messages out of bytes that come in pieces, for both ends, without input and output.

use zeroize::Zeroizing;

use crate::protocol::{
    ALIVE, Command, LENGTH_BYTES, MAX_COMMAND_BYTES, MAX_RESPONSE_BYTES, Malformed, RESPONSE, Response, decode_command,
    decode_response,
};

/// A length and as many bytes, which `B` wipes when it is dropped if they are secret.
struct Frame<B> {
    max_bytes: usize,
    length: [u8; LENGTH_BYTES],
    /// `None` while the length comes.
    body: Option<B>,
    /// Of the length, or of the body.
    received: usize,
}

impl<B: AsMut<[u8]> + From<Vec<u8>>> Frame<B> {
    fn new(max_bytes: usize) -> Self {
        Self { max_bytes, length: [0; LENGTH_BYTES], body: None, received: 0 }
    }

    /// Never empty.
    fn buffer(&mut self) -> &mut [u8] {
        let field = self.body.as_mut().map_or(&mut self.length[..], AsMut::as_mut);
        &mut field[self.received..]
    }

    /// The whole body, once.
    fn filled(&mut self, bytes: usize) -> Result<Option<&mut [u8]>, Malformed> {
        assert!(bytes <= self.buffer().len());
        self.received += bytes;
        if self.body.is_none() && self.received == LENGTH_BYTES {
            let body_bytes = u32::from_be_bytes(self.length) as usize;
            if !(1..=self.max_bytes).contains(&body_bytes) {
                return Err(Malformed);
            }
            self.body = Some(vec![0; body_bytes].into());
            self.received = 0;
        }
        let received = self.received;
        Ok(self.body.as_mut().map(AsMut::as_mut).filter(|body| body.len() == received))
    }
}

/// The broker's end: a command, in which nothing is secret.
pub struct CommandReader(Frame<Vec<u8>>);

impl CommandReader {
    /// Nothing has come yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Frame::new(MAX_COMMAND_BYTES))
    }

    /// Room for what comes next. Never empty.
    fn buffer(&mut self) -> &mut [u8] {
        self.0.buffer()
    }

    /// So many bytes were put to the beginning of the buffer, no more than it has. The command, if it is complete.
    fn filled(&mut self, bytes: usize) -> Result<Option<Command>, Malformed> {
        self.0.filled(bytes)?.map(|body| decode_command(body)).transpose()
    }

    /// So many bytes have come. The command, if it is complete.
    ///
    /// # Errors
    /// [`Malformed`], also if something comes behind it.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Option<Command>, Malformed> {
        feed(bytes, self, Self::buffer, Self::filled)
    }
}

impl Default for CommandReader {
    fn default() -> Self {
        Self::new()
    }
}

/// The session's end: signs of life, and then a response.
pub struct ResponseReader {
    /// `None` while nothing but signs of life has come.
    frame: Option<Frame<Zeroizing<Vec<u8>>>>,
    kind: [u8; 1],
}

impl ResponseReader {
    /// Nothing has come yet.
    #[must_use]
    pub fn new() -> Self {
        Self { frame: None, kind: [0] }
    }

    /// Room for what comes next. Never empty.
    fn buffer(&mut self) -> &mut [u8] {
        match &mut self.frame {
            None => &mut self.kind,
            Some(frame) => frame.buffer(),
        }
    }

    /// So many bytes were put to the beginning of the buffer, no more than it has. The response, if it is complete.
    fn filled(&mut self, bytes: usize) -> Result<Option<Response>, Malformed> {
        assert!(bytes <= self.buffer().len());
        match &mut self.frame {
            Some(frame) => return frame.filled(bytes)?.map(decode_response).transpose(),
            None if bytes == 0 => {}
            None => match self.kind {
                [ALIVE] => {}
                [RESPONSE] => self.frame = Some(Frame::new(MAX_RESPONSE_BYTES)),
                _ => return Err(Malformed),
            },
        }
        Ok(None)
    }

    /// So many bytes have come. The response, if it is complete.
    ///
    /// # Errors
    /// [`Malformed`], also if something comes behind it.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Option<Response>, Malformed> {
        feed(bytes, self, Self::buffer, Self::filled)
    }
}

/// Puts bytes where the reader wants them. What comes behind a message is for nobody: the other end waits for an answer first.
fn feed<R, T>(
    mut bytes: &[u8],
    reader: &mut R,
    buffer: impl Fn(&mut R) -> &mut [u8],
    filled: impl Fn(&mut R, usize) -> Result<Option<T>, Malformed>,
) -> Result<Option<T>, Malformed> {
    while !bytes.is_empty() {
        let room = buffer(reader);
        assert!(!room.is_empty(), "a reader always has room");
        let count = room.len().min(bytes.len());
        let (now, rest) = bytes.split_at(count);
        room[..count].copy_from_slice(now);
        bytes = rest;
        if let Some(message) = filled(reader, count)? {
            return if bytes.is_empty() { Ok(Some(message)) } else { Err(Malformed) };
        }
    }
    Ok(None)
}

impl Default for ResponseReader {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use envelope_core::keys::{Dek, KEY_BYTES};
    use envelope_core::request::{ConsentAge, OpeningGrant, Reply, Request};

    use super::*;
    use crate::protocol::{encode_command, encode_response};

    const DEK: [u8; KEY_BYTES] = [0xd5; KEY_BYTES];

    fn response() -> Response {
        let dek = Dek::take_from(&mut DEK.clone()).expect("it has the length of a data key");
        Response::Reply(Ok(Reply::Opening(OpeningGrant {
            dek,
            key_id: "local:dev".into(),
            consent: ConsentAge::JUST_GIVEN,
        })))
    }

    /// Gives a reader some bytes in pieces of at most so many; what is behind a message, or an error, is not read.
    fn read<T>(
        bytes: &[u8],
        piece_bytes: usize,
        take: impl FnMut(&[u8]) -> Result<Option<T>, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        bytes.chunks(piece_bytes).map(take).find_map(Result::transpose).transpose()
    }

    fn read_response(bytes: &[u8], piece_bytes: usize) -> Result<Option<Response>, Malformed> {
        let mut reader = ResponseReader::new();
        read(bytes, piece_bytes, |piece| reader.take(piece))
    }

    fn read_command(bytes: &[u8], piece_bytes: usize) -> Result<Option<Command>, Malformed> {
        let mut reader = CommandReader::new();
        read(bytes, piece_bytes, |piece| reader.take(piece))
    }

    #[test]
    fn a_response_comes_in_pieces_of_any_size_behind_signs_of_life() {
        let bytes = [&[ALIVE; 3], &encode_response(response())[..]].concat();
        for piece_bytes in 1..=bytes.len() {
            let read = read_response(&bytes, piece_bytes).expect("it is well-formed").expect("it is complete");
            let Response::Reply(Ok(Reply::Opening(grant))) = read else { panic!("another response") };
            assert!(*grant.dek.as_bytes() == DEK);
            assert!(matches!(read_response(&bytes[..bytes.len() - 1], piece_bytes), Ok(None)));
        }
    }

    #[test]
    fn a_call_comes_in_pieces_of_any_size() {
        let bytes = encode_command(&Command::<Request>::Statistics);
        for piece_bytes in 1..=bytes.len() {
            assert_eq!(read_command(&bytes, piece_bytes), Ok(Some(Command::Statistics)));
            assert_eq!(read_command(&bytes[..bytes.len() - 1], piece_bytes), Ok(None));
        }
    }

    #[test]
    fn what_was_read_into_another_buffer_is_taken_and_nothing_behind_a_message() {
        let bytes = [&[ALIVE; 3], &encode_response(response())[..]].concat();
        for piece_bytes in 1..=bytes.len() {
            let mut reader = ResponseReader::new();
            let taken: Vec<_> =
                bytes.chunks(piece_bytes).map(|piece| reader.take(piece).expect("well-formed")).collect();
            let (last, before) = taken.split_last().expect("there are pieces");
            assert!(last.is_some() && before.iter().all(Option::is_none), "{piece_bytes}");
        }
        assert!(ResponseReader::new().take(&[&bytes[..], &[ALIVE]].concat()).is_err());
        let command = encode_command(&Command::<Request>::Statistics);
        assert_eq!(CommandReader::new().take(&command), Ok(Some(Command::Statistics)));
        assert_eq!(CommandReader::new().take(&[&command[..], &[0]].concat()), Err(Malformed));
    }

    #[test]
    fn what_is_no_message_is_refused_before_there_is_room_for_it() {
        let response_of = |length: u32| [&[RESPONSE], &length.to_be_bytes()[..]].concat();
        for bytes in [vec![2], response_of(0), response_of(MAX_RESPONSE_BYTES as u32 + 1), response_of(u32::MAX)] {
            assert!(read_response(&bytes, 1).is_err(), "{bytes:?}");
        }
        for length in [0, MAX_COMMAND_BYTES as u32 + 1, u32::MAX] {
            assert_eq!(read_command(&length.to_be_bytes(), 4), Err(Malformed));
        }
        assert!(read_response(&response_of(MAX_RESPONSE_BYTES as u32), 8).is_ok());
        assert_eq!(read_command(&(MAX_COMMAND_BYTES as u32).to_be_bytes(), 8), Ok(None));
    }

    #[test]
    fn nothing_received_changes_nothing() {
        let mut reader = ResponseReader::new();
        reader.buffer()[0] = 7;
        assert!(matches!(reader.filled(0), Ok(None)));
        reader.buffer()[0] = RESPONSE;
        assert!(matches!(reader.filled(1), Ok(None)));
        assert_eq!(reader.buffer().len(), LENGTH_BYTES);
    }
}
