//! The broker's protocol: whatever is accepted can be written, and means the same then; whatever is not leaves no data key.
//! The first byte says which side reads.

#![no_main]

use envelope_broker::protocol::{LENGTH_BYTES, Malformed, decode_answer, decode_call, encode_answer, encode_call};
use libfuzzer_sys::fuzz_target;

/// What stands in front of an answer.
const FRONT_BYTES: usize = 1 + LENGTH_BYTES;

fuzz_target!(|input: &[u8]| {
    match input.split_first() {
        Some((0, body)) => call(body),
        Some((_, body)) => answer(body),
        None => {}
    }
});

fn call(body: &[u8]) {
    if let Ok(call) = decode_call(body) {
        assert_eq!(decode_call(&encode_call(&call)[LENGTH_BYTES..]), Ok(call));
    }
}

fn answer(body: &[u8]) {
    let mut read = body.to_vec();
    match decode_answer(&mut read) {
        Ok(answer) => {
            // Integers have more than one encoding, but only one is written.
            let written = encode_answer(answer);
            let again = decode_answer(&mut written[FRONT_BYTES..].to_vec());
            let Ok(again) = again else { panic!("what was written is refused") };
            assert!(*encode_answer(again) == *written);
            if body[0] == 1 {
                assert!(read[1..33].iter().all(|byte| *byte == 0), "the data key is left behind");
            }
        }
        Err(Malformed) => assert!(read.iter().all(|byte| *byte == 0), "there may be a data key"),
    }
}
