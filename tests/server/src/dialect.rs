//! Where the emulator differs from AWS: multi-Region keys. Translated in both directions, so that the extension sees AWS.
//!
//! The emulator gives them ids of 40 characters (`mrk-` and a uuid with its dashes; AWS has none), of which it stores 36 in
//! what it encrypts, so that it cannot decrypt. So a multi-Region key of the tests is an ordinary key of the emulator,
//! whose uuid is known outside as `mrk-` and 32 hexadecimal digits.

use std::sync::{Mutex, PoisonError};

/// The ids of such keys: the emulator's and the one of AWS's form.
static MULTI_REGION_KEYS: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

/// Gives an ordinary key of the emulator the id of a multi-Region key, from now on.
pub fn make_multi_region(uuid: &str) -> String {
    let id = format!("mrk-{}", uuid.replace('-', ""));
    let mut keys = MULTI_REGION_KEYS.lock().unwrap_or_else(PoisonError::into_inner);
    keys.push((uuid.to_owned(), id.clone()));
    id
}

/// What AWS says, in the emulator's words.
pub fn to_emulator(body: &[u8]) -> Vec<u8> {
    translate(body, |text, (uuid, id)| text.replace(id, uuid))
}

/// What the emulator says, in the words of AWS.
pub fn from_emulator(body: &[u8]) -> Vec<u8> {
    translate(body, |text, (uuid, id)| text.replace(uuid, id))
}

/// The base64 of data keys has no dash, so nothing in it looks like one of the ids.
fn translate(body: &[u8], replace: impl Fn(&str, &(String, String)) -> String) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(body) else {
        return body.to_vec();
    };
    let keys = MULTI_REGION_KEYS.lock().unwrap_or_else(PoisonError::into_inner);
    keys.iter().fold(text.to_owned(), |text, key| replace(&text, key)).into_bytes()
}
