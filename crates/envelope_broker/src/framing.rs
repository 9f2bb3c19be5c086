//! Messages out of bytes that come in pieces, for both ends, without input and output: whoever reads a socket gives them room
//! with `buffer`, and tells with `filled` how much of it was used.

use zeroize::Zeroizing;

use crate::protocol::{
    ALIVE, ANSWER, Answer, Call, LENGTH_BYTES, MAX_ANSWER_BYTES, MAX_CALL_BYTES, Malformed, decode_answer, decode_call,
};

/// A length and as many bytes. What was received is wiped when it is dropped.
struct Frame {
    max_bytes: usize,
    length: [u8; LENGTH_BYTES],
    /// `None` while the length comes.
    body: Option<Zeroizing<Vec<u8>>>,
    /// Of the length, or of the body.
    received: usize,
}

impl Frame {
    fn new(max_bytes: usize) -> Self {
        Self { max_bytes, length: [0; LENGTH_BYTES], body: None, received: 0 }
    }

    /// Never empty.
    fn buffer(&mut self) -> &mut [u8] {
        let field = self.body.as_mut().map_or(&mut self.length[..], |body| &mut body[..]);
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
            self.body = Some(Zeroizing::new(vec![0; body_bytes]));
            self.received = 0;
        }
        let received = self.received;
        Ok(self.body.as_mut().map(|body| &mut body[..]).filter(|body| body.len() == received))
    }
}

/// The broker's end: a call.
pub struct CallReader(Frame);

impl CallReader {
    /// Nothing has come yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Frame::new(MAX_CALL_BYTES))
    }

    /// Room for what comes next. Never empty.
    pub fn buffer(&mut self) -> &mut [u8] {
        self.0.buffer()
    }

    /// So many bytes were put to the beginning of the buffer. The call, if it is complete: then nothing more is to come.
    ///
    /// # Errors
    /// [`Malformed`].
    ///
    /// # Panics
    /// If they are more than the buffer has.
    pub fn filled(&mut self, bytes: usize) -> Result<Option<Call>, Malformed> {
        self.0.filled(bytes)?.map(|body| decode_call(body)).transpose()
    }
}

impl Default for CallReader {
    fn default() -> Self {
        Self::new()
    }
}

/// The session's end: signs of life, and then an answer.
pub struct AnswerReader {
    /// `None` while nothing but signs of life has come.
    frame: Option<Frame>,
    kind: [u8; 1],
}

impl AnswerReader {
    /// Nothing has come yet.
    #[must_use]
    pub fn new() -> Self {
        Self { frame: None, kind: [0] }
    }

    /// Room for what comes next. Never empty.
    pub fn buffer(&mut self) -> &mut [u8] {
        match &mut self.frame {
            None => &mut self.kind,
            Some(frame) => frame.buffer(),
        }
    }

    /// So many bytes were put to the beginning of the buffer. The answer, if it is complete: then nothing more is to come.
    ///
    /// # Errors
    /// [`Malformed`].
    ///
    /// # Panics
    /// If they are more than the buffer has.
    pub fn filled(&mut self, bytes: usize) -> Result<Option<Answer>, Malformed> {
        assert!(bytes <= self.buffer().len());
        match &mut self.frame {
            Some(frame) => return frame.filled(bytes)?.map(decode_answer).transpose(),
            None if bytes == 0 => {}
            None => match self.kind {
                [ALIVE] => {}
                [ANSWER] => self.frame = Some(Frame::new(MAX_ANSWER_BYTES)),
                _ => return Err(Malformed),
            },
        }
        Ok(None)
    }
}

impl Default for AnswerReader {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use envelope_core::keys::{Dek, KEY_BYTES};
    use envelope_core::request::{ConsentAge, OpeningGrant, Reply};

    use super::*;
    use crate::protocol::{encode_answer, encode_call};

    const DEK: [u8; KEY_BYTES] = [0xd5; KEY_BYTES];

    fn answer() -> Answer {
        let dek = Dek::take_from(&mut DEK.clone()).expect("it has the length of a data key");
        Answer::Reply(Ok(Reply::Opening(OpeningGrant {
            dek,
            key_id: "local:dev".into(),
            consent: ConsentAge::JUST_GIVEN,
        })))
    }

    /// Gives a reader some bytes in pieces of at most so many; what is behind a message, or an error, is not read.
    fn read<T, R>(
        mut bytes: &[u8],
        piece_bytes: usize,
        reader: &mut R,
        buffer: impl Fn(&mut R) -> &mut [u8],
        filled: impl Fn(&mut R, usize) -> Result<Option<T>, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        while !bytes.is_empty() {
            let room = buffer(reader);
            assert!(!room.is_empty());
            let count = room.len().min(piece_bytes).min(bytes.len());
            room[..count].copy_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            if let Some(message) = filled(reader, count)? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    fn read_answer(bytes: &[u8], piece_bytes: usize) -> Result<Option<Answer>, Malformed> {
        read(bytes, piece_bytes, &mut AnswerReader::new(), AnswerReader::buffer, AnswerReader::filled)
    }

    fn read_call(bytes: &[u8], piece_bytes: usize) -> Result<Option<Call>, Malformed> {
        read(bytes, piece_bytes, &mut CallReader::new(), CallReader::buffer, CallReader::filled)
    }

    #[test]
    fn an_answer_comes_in_pieces_of_any_size_behind_signs_of_life() {
        let bytes = [&[ALIVE; 3], &encode_answer(answer())[..]].concat();
        for piece_bytes in 1..=bytes.len() {
            let read = read_answer(&bytes, piece_bytes).expect("it is well-formed").expect("it is complete");
            let Answer::Reply(Ok(Reply::Opening(grant))) = read else { panic!("another answer") };
            assert!(*grant.dek.as_bytes() == DEK);
            assert!(matches!(read_answer(&bytes[..bytes.len() - 1], piece_bytes), Ok(None)));
        }
    }

    #[test]
    fn a_call_comes_in_pieces_of_any_size() {
        let bytes = encode_call(&Call::Statistics);
        for piece_bytes in 1..=bytes.len() {
            assert_eq!(read_call(&bytes, piece_bytes), Ok(Some(Call::Statistics)));
            assert_eq!(read_call(&bytes[..bytes.len() - 1], piece_bytes), Ok(None));
        }
    }

    #[test]
    fn what_is_no_message_is_refused_before_there_is_room_for_it() {
        let answer_of = |length: u32| [&[ANSWER], &length.to_be_bytes()[..]].concat();
        for bytes in [vec![2], answer_of(0), answer_of(MAX_ANSWER_BYTES as u32 + 1), answer_of(u32::MAX)] {
            assert!(read_answer(&bytes, 1).is_err(), "{bytes:?}");
        }
        for length in [0, MAX_CALL_BYTES as u32 + 1, u32::MAX] {
            assert_eq!(read_call(&length.to_be_bytes(), 4), Err(Malformed));
        }
        assert!(read_answer(&answer_of(MAX_ANSWER_BYTES as u32), 8).is_ok());
        assert_eq!(read_call(&(MAX_CALL_BYTES as u32).to_be_bytes(), 8), Ok(None));
    }

    #[test]
    fn nothing_received_changes_nothing() {
        let mut reader = AnswerReader::new();
        reader.buffer()[0] = 7;
        assert!(matches!(reader.filled(0), Ok(None)));
        reader.buffer()[0] = ANSWER;
        assert!(matches!(reader.filled(1), Ok(None)));
        assert_eq!(reader.buffer().len(), LENGTH_BYTES);
    }
}
