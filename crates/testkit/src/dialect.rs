//! Where the emulator differs from AWS: multi-Region keys. Translated in both directions, so that the extension sees AWS.
//!
//! The emulator gives them ids of 40 characters (`mrk-` and a uuid with its dashes; AWS has none), of which it stores 36 in
//! what it encrypts, so that it cannot decrypt; and what one of its regions encrypts, no other can decrypt. So a multi-Region
//! key of the tests is one ordinary key of the emulator, in [`REGION`], whose uuid is known outside as `mrk-` and 32
//! hexadecimal digits, and as the key of that id in each region that has a replica.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::http::Message;

/// The region of every key of the tests, unless they say another one.
pub const REGION: &str = "us-west-2";

/// The emulator's account.
pub const ACCOUNT: &str = "123456789012";

static MULTI_REGION_KEYS: Mutex<Vec<MultiRegionKey>> = Mutex::new(Vec::new());

/// Region, alias, and the multi-Region key that it stands for there.
static ALIASES: Mutex<Vec<(String, String, String)>> = Mutex::new(Vec::new());

struct MultiRegionKey {
    /// The emulator's id.
    uuid: String,
    /// The id of AWS's form.
    id: String,
    /// Where it is, [`REGION`] included.
    regions: Vec<String>,
}

/// Gives an ordinary key of the emulator the id of a multi-Region key, from now on.
pub fn make_multi_region(uuid: &str) -> String {
    let id = format!("mrk-{}", uuid.replace('-', ""));
    keys().push(MultiRegionKey { uuid: uuid.to_owned(), id: id.clone(), regions: vec![REGION.to_owned()] });
    id
}

/// Gives a multi-Region key a replica in a region.
pub fn add_replica(id: &str, region: &str) {
    let mut keys = keys();
    let key = keys.iter_mut().find(|key| key.id == id).expect("only a multi-Region key has replicas");
    key.regions.push(region.to_owned());
}

/// Makes an alias of a multi-Region key's replica in a region other than [`REGION`].
pub fn add_alias(region: &str, alias: &str, id: &str) {
    aliases().push((region.to_owned(), alias.to_owned(), id.to_owned()));
}

/// Puts what AWS is asked into the emulator's words. Says whether AWS would know the key in the region that is asked.
pub fn to_emulator(request: &mut Message) -> bool {
    let keys = keys();
    let mut body = String::from_utf8_lossy(&request.body).into_owned();
    for (_, alias, id) in aliases().iter().filter(|(region, ..)| region == request.region()) {
        let key = format!("\"{}\"", arn(request.region(), id));
        let alias_arn = format!("\"arn:aws:kms:{}:{ACCOUNT}:{alias}\"", request.region());
        body = body.replace(&format!("\"{alias}\""), &key).replace(&alias_arn, &key);
    }
    let Some(key) = keys.iter().find(|key| body.contains(&key.id)) else {
        return true;
    };
    let region = request.region().to_owned();
    if !key.regions.contains(&region) {
        return false;
    }
    request.body = body.replace(&arn(&region, &key.id), &arn(REGION, &key.uuid)).replace(&key.id, &key.uuid).into();
    for (name, value) in &mut request.headers {
        if name.eq_ignore_ascii_case("authorization") {
            *value = value.replace(&format!("/{region}/kms/"), &format!("/{REGION}/kms/"));
        }
    }
    true
}

/// What the emulator says, in the words of AWS in a region. The base64 of data keys has no dash, so nothing in it looks like
/// one of the ids.
pub fn from_emulator(body: &[u8], region: &str) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(body) else {
        return body.to_vec();
    };
    let translate = |text: String, key: &MultiRegionKey| {
        text.replace(&arn(REGION, &key.uuid), &arn(region, &key.id)).replace(&key.uuid, &key.id)
    };
    keys().iter().fold(text.to_owned(), translate).into_bytes()
}

fn arn(region: &str, id: &str) -> String {
    format!("arn:aws:kms:{region}:{ACCOUNT}:key/{id}")
}

fn aliases() -> MutexGuard<'static, Vec<(String, String, String)>> {
    ALIASES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn keys() -> MutexGuard<'static, Vec<MultiRegionKey>> {
    MULTI_REGION_KEYS.lock().unwrap_or_else(PoisonError::into_inner)
}
