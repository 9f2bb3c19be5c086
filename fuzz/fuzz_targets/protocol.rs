//! The broker's protocol: whatever is accepted can be written, and means the same then; whatever is not leaves no data key.
//! The first byte says which side reads.

#![no_main]

use envelope_broker::protocol::{LENGTH_BYTES, Malformed, decode_command, decode_response, encode_command, encode_response};
use libfuzzer_sys::fuzz_target;

/// What stands in front of a response.
const FRONT_BYTES: usize = 1 + LENGTH_BYTES;

fuzz_target!(|input: &[u8]| {
    match input.split_first() {
        Some((0, body)) => command(body),
        Some((_, body)) => response(body),
        None => {}
    }
});

fn command(body: &[u8]) {
    if let Ok(command) = decode_command(body) {
        assert_eq!(decode_command(&encode_command(&command)[LENGTH_BYTES..]), Ok(command));
    }
}

fn response(body: &[u8]) {
    let mut read = body.to_vec();
    match decode_response(&mut read) {
        Ok(response) => {
            // Integers have more than one encoding, but only one is written.
            let written = encode_response(response);
            let again = decode_response(&mut written[FRONT_BYTES..].to_vec());
            let Ok(again) = again else { panic!("what was written is refused") };
            assert!(*encode_response(again) == *written);
            if body[0] == 1 {
                assert!(read[1..33].iter().all(|byte| *byte == 0), "the data key is left behind");
            }
        }
        Err(Malformed) => assert!(read.iter().all(|byte| *byte == 0), "there may be a data key"),
    }
}
