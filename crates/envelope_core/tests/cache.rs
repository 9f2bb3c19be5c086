//! The caches of data keys: limits, ages, eviction. Time is a parameter.

mod common;

use std::num::NonZeroUsize;
use std::rc::Rc;
use std::time::{Duration, Instant};

use common::random_bytes;
use envelope_core::cache::{Found, Limits, OpeningKeys, SealingKeys};
use envelope_core::context::EncryptionContext;
use envelope_core::keys::{Dek, Provider, WrappedKey};
use envelope_core::value::DataKey;

const LIMITS: Limits = Limits {
    entries: NonZeroUsize::new(2).unwrap(),
    ttl: Duration::from_secs(60),
    max_age: Duration::from_secs(600),
    max_uses: None,
    max_bytes: None,
};
const SECOND: Duration = Duration::from_secs(1);

fn data_key() -> Rc<DataKey> {
    let dek = Dek::take_from(&mut random_bytes(32)).unwrap();
    let wrapped = WrappedKey { provider: Provider::Local, key_id: "local:a".into(), wrapped_dek: random_bytes(8) };
    Rc::new(DataKey::generated(dek, wrapped, &EncryptionContext::default()).unwrap())
}

fn is_current(found: &Found, data_key: &Rc<DataKey>) -> bool {
    matches!(found, Found::Current(current) if Rc::ptr_eq(current, data_key))
}

#[test]
fn opening_keys_are_found_until_their_time_is_up() {
    let (now, mut keys) = (Instant::now(), OpeningKeys::new());
    let (one, two) = (data_key(), data_key());
    keys.insert(Rc::clone(&one), now, &LIMITS);
    keys.insert(Rc::clone(&two), now, &LIMITS);
    for time in [now, now + 59 * SECOND] {
        for key in [&one, &two, &two, &one] {
            assert!(Rc::ptr_eq(&keys.find(key.identity(), time, &LIMITS).unwrap(), key));
        }
    }
    assert!(keys.find(data_key().identity(), now, &LIMITS).is_none());
    assert!(keys.find(one.identity(), now + 60 * SECOND, &LIMITS).is_none());
    assert!(keys.find(one.identity(), now, &LIMITS).is_none(), "what was too old is gone");
    assert!(keys.find(two.identity(), now + 60 * SECOND, &LIMITS).is_none());
    assert_eq!(Rc::strong_count(&one), 1, "and wiped as soon as nobody uses it");
}

#[test]
fn the_least_recently_used_opening_key_goes_first() {
    let (now, mut keys) = (Instant::now(), OpeningKeys::new());
    let (one, two, three) = (data_key(), data_key(), data_key());
    keys.insert(Rc::clone(&one), now, &LIMITS);
    keys.insert(Rc::clone(&two), now, &LIMITS);
    keys.find(one.identity(), now, &LIMITS).unwrap();
    keys.insert(Rc::clone(&three), now, &LIMITS);
    assert!(keys.find(two.identity(), now, &LIMITS).is_none());
    assert!(keys.find(one.identity(), now, &LIMITS).is_some());
    assert!(keys.find(three.identity(), now, &LIMITS).is_some());
    assert_eq!(Rc::strong_count(&two), 1);
}

#[test]
fn an_insertion_drops_what_is_too_old() {
    let (now, mut keys) = (Instant::now(), OpeningKeys::new());
    let old = data_key();
    keys.insert(Rc::clone(&old), now, &LIMITS);
    keys.insert(data_key(), now + 61 * SECOND, &LIMITS);
    assert_eq!(Rc::strong_count(&old), 1);
    assert_eq!(keys.clear(), 1);
}

#[test]
fn cleared_and_removed_keys_are_gone() {
    let (now, mut keys) = (Instant::now(), OpeningKeys::new());
    let (one, two) = (data_key(), data_key());
    keys.insert(Rc::clone(&one), now, &LIMITS);
    keys.insert(Rc::clone(&two), now, &LIMITS);
    keys.remove(two.identity());
    assert!(keys.find(two.identity(), now, &LIMITS).is_none());
    assert_eq!(keys.clear(), 1);
    assert!(keys.find(one.identity(), now, &LIMITS).is_none());
    assert_eq!((Rc::strong_count(&one), Rc::strong_count(&two)), (1, 1));
}

#[test]
fn a_sealing_key_is_for_its_key_id_and_context_only() {
    let (now, mut keys) = (Instant::now(), SealingKeys::new());
    let none = EncryptionContext::default();
    let context = EncryptionContext::from_json(r#"{"a": "b"}"#).unwrap();
    let (one, two) = (data_key(), data_key());
    keys.insert("local:a", &none, Rc::clone(&one), 1, now, &LIMITS);
    keys.insert("local:a", &context, Rc::clone(&two), 1, now, &LIMITS);
    assert!(is_current(&keys.find("local:a", &none, 1, now, &LIMITS), &one));
    assert!(is_current(&keys.find("local:a", &context, 1, now, &LIMITS), &two));
    assert!(is_current(&keys.find("local:a", &none, 1, now, &LIMITS), &one));
    assert!(matches!(keys.find("local:b", &none, 1, now, &LIMITS), Found::Nothing));
    keys.insert("local:b", &none, data_key(), 1, now, &LIMITS);
    assert!(
        matches!(keys.find("local:a", &context, 1, now, &LIMITS), Found::Nothing),
        "two entries, and it was last used first"
    );
}

#[test]
fn a_sealing_key_is_spent_by_uses() {
    let (now, mut keys, none) = (Instant::now(), SealingKeys::new(), EncryptionContext::default());
    let limits = Limits { max_uses: Some(3), ..LIMITS };
    let key = data_key();
    keys.insert("local:a", &none, Rc::clone(&key), 1, now, &limits);
    assert!(is_current(&keys.find("local:a", &none, 1, now, &limits), &key));
    assert!(is_current(&keys.find("local:a", &none, 1, now, &limits), &key));
    assert!(matches!(keys.find("local:a", &none, 1, now, &limits), Found::Nothing));
    assert_eq!(Rc::strong_count(&key), 1);
}

#[test]
fn a_sealing_key_is_spent_by_bytes() {
    let (now, mut keys, none) = (Instant::now(), SealingKeys::new(), EncryptionContext::default());
    let limits = Limits { max_bytes: Some(100), ..LIMITS };
    let key = data_key();
    keys.insert("local:a", &none, Rc::clone(&key), 60, now, &limits);
    assert!(is_current(&keys.find("local:a", &none, 40, now, &limits), &key));
    assert!(matches!(keys.find("local:a", &none, 1, now, &limits), Found::Nothing));
    // A value above the limit has a data key to itself.
    keys.insert("local:a", &none, data_key(), 1_000, now, &limits);
    assert!(matches!(keys.find("local:a", &none, 0, now, &limits), Found::Nothing));
}

#[test]
fn a_sealing_key_is_spent_by_age_and_confirmed_in_between() {
    let (now, mut keys, none) = (Instant::now(), SealingKeys::new(), EncryptionContext::default());
    let key = data_key();
    keys.insert("local:a", &none, Rc::clone(&key), 1, now, &LIMITS);
    for minute in 1..10 {
        let time = now + minute * 60 * SECOND;
        assert!(matches!(keys.find("local:a", &none, 1, time, &LIMITS), Found::Unconfirmed(_)));
        assert!(
            matches!(keys.find("local:a", &none, 1, time, &LIMITS), Found::Unconfirmed(_)),
            "until it is confirmed"
        );
        keys.confirm("local:a", &none, 1, time);
        assert!(is_current(&keys.find("local:a", &none, 1, time + 59 * SECOND, &LIMITS), &key));
    }
    assert!(matches!(keys.find("local:a", &none, 1, now + 600 * SECOND, &LIMITS), Found::Nothing));
}

#[test]
fn cleared_sealing_keys_are_gone() {
    let (now, mut keys, none) = (Instant::now(), SealingKeys::new(), EncryptionContext::default());
    let key = data_key();
    keys.insert("local:a", &none, Rc::clone(&key), 1, now, &LIMITS);
    keys.clear();
    assert!(matches!(keys.find("local:a", &none, 1, now, &LIMITS), Found::Nothing));
    assert_eq!(Rc::strong_count(&key), 1);
}
