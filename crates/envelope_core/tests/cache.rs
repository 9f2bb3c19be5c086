//! The caches of data keys: limits, ages, eviction. Time is a parameter.

mod common;

use std::rc::Rc;
use std::time::{Duration, Instant};

use envelope_core::cache::bounded::Bounds;
use envelope_core::cache::{CachedKey, Consent, Limits, NewCurrent, OpeningKeys, SealingKeys};
use envelope_core::context::EncryptionContext;
use envelope_core::keys::{Dek, Provider, WrappedKey};
use envelope_core::request::Lease;
use envelope_core::value::DataKey;

use common::random_bytes;

const LIMITS: Limits = Limits {
    bounds: Bounds { entries: 2, bytes: usize::MAX },
    ttl: Duration::from_secs(256),
    stale_if_unreachable: Duration::from_secs(100),
    max_age: Duration::from_secs(600),
    max_uses: None,
    max_bytes: None,
};
const SECOND: Duration = Duration::from_secs(1);

fn cached_key(now: Instant) -> Rc<CachedKey> {
    let dek = Dek::take_from(&mut random_bytes(32)).unwrap();
    let wrapped = WrappedKey { provider: Provider::Local, key_id: "local:a".into(), wrapped_dek: random_bytes(8) };
    let data_key = DataKey::generated(dek, wrapped, &EncryptionContext::default(), &Rc::default()).unwrap();
    Rc::new(CachedKey::new(data_key, now, 0))
}

fn find(keys: &mut OpeningKeys, cached: &Rc<CachedKey>) -> bool {
    keys.find(cached.data_key().identity()).is_some_and(|found| Rc::ptr_eq(&found, cached))
}

/// Finds the data key that seals a value, and uses it.
fn take(
    keys: &mut SealingKeys,
    key_id: &str,
    context: &EncryptionContext,
    plaintext_bytes: usize,
    now: Instant,
    limits: &Limits,
) -> Option<Rc<CachedKey>> {
    let (found, _) = keys.find(key_id, context, plaintext_bytes, now, limits)?;
    keys.count_last(plaintext_bytes);
    Some(found)
}

fn is_current(found: Option<Rc<CachedKey>>, cached: &Rc<CachedKey>) -> bool {
    found.is_some_and(|found| Rc::ptr_eq(&found, cached))
}

#[test]
fn opening_keys_are_found_by_identity() {
    let (now, mut keys) = (Instant::now(), OpeningKeys::default());
    let (one, two) = (cached_key(now), cached_key(now));
    keys.insert(Rc::clone(&one), now, &LIMITS);
    keys.insert(Rc::clone(&two), now, &LIMITS);
    for key in [&one, &two, &two, &one] {
        assert!(find(&mut keys, key));
    }
    assert!(!find(&mut keys, &cached_key(now)));
}

#[test]
fn consent_over_a_key_s_life() {
    let (start, second) = (Instant::now(), |second: u64| Duration::from_secs(second));
    let key = cached_key(start);
    let consent = |at: u64| key.consent(start + second(at), &LIMITS);
    assert_eq!(consent(217), Consent::Fresh);
    assert_eq!(consent(218), Consent::RefreshDue);
    key.refresh_started();
    assert_eq!(consent(219), Consent::Fresh, "one refresh at a time");
    assert_eq!(consent(256), Consent::Expired, "time is up though the refresh hangs");
    key.confirmed(start + second(200));
    assert_eq!(consent(417), Consent::Fresh);
    assert_eq!(consent(418), Consent::RefreshDue);
    key.out_of_reach(start + second(418));
    assert_eq!(consent(418), Consent::Fresh, "not at once again");
    assert_eq!(consent(419), Consent::RefreshDue);
    key.out_of_reach(start + second(450));
    assert_eq!(consent(456), Consent::StaleRefreshDue);
    key.refresh_started();
    assert_eq!(consent(457), Consent::Stale);
    key.out_of_reach(start + second(457));
    assert_eq!(consent(457), Consent::Stale);
    assert_eq!(consent(458), Consent::StaleRefreshDue);
    assert_eq!(consent(516), Consent::StaleRefreshDue);
    assert_eq!(consent(517), Consent::Expired, "an outage of a minute ago may be over");
    key.out_of_reach(start + second(550));
    assert_eq!(consent(555), Consent::StaleRefreshDue);
    assert_eq!(consent(556), Consent::Expired, "the bound of the outage contract");
    assert!(key.may_go_stale(start + second(555), &LIMITS) && !key.may_go_stale(start + second(556), &LIMITS));
    key.confirmed(start + second(556));
    assert_eq!(consent(556), Consent::Fresh);
}

#[test]
fn a_young_key_is_fresh() {
    let start = Instant::now();
    let key = cached_key(start);
    assert!(key.is_young(start - SECOND, LIMITS.ttl), "the clock that is read for each value is a little behind");
    assert!(key.is_young(start + SECOND * 127, LIMITS.ttl));
    assert!(!key.is_young(start + SECOND * 128, LIMITS.ttl));
    for ttl in (1..600).map(Duration::from_secs) {
        let limits = Limits { ttl, ..LIMITS };
        for now in (0..600).map(|second| start + SECOND * second) {
            assert!(!key.is_young(now, ttl) || key.consent(now, &limits) == Consent::Fresh);
        }
    }
}

#[test]
fn without_a_known_outage_a_key_expires() {
    let start = Instant::now();
    let key = cached_key(start);
    let expired = start + Duration::from_secs(256);
    assert_eq!(key.consent(expired, &LIMITS), Consent::Expired);
    assert!(key.may_go_stale(expired, &LIMITS), "if it turns out that there is one");
    let limits = Limits { stale_if_unreachable: Duration::ZERO, ..LIMITS };
    key.out_of_reach(expired);
    assert_eq!(key.consent(expired + SECOND, &limits), Consent::Expired, "the contract is off");
}

#[test]
fn a_refresh_that_failed_is_not_repeated_at_once_and_is_no_outage() {
    let start = Instant::now();
    let key = cached_key(start);
    let at = |second: u64| start + Duration::from_secs(second);
    key.refresh_started();
    key.refresh_failed(at(230));
    assert_eq!(key.consent(at(230), &LIMITS), Consent::Fresh);
    assert_eq!(key.consent(at(231), &LIMITS), Consent::RefreshDue);
    assert_eq!(key.consent(at(256), &LIMITS), Consent::Expired);
}

#[test]
fn refreshes_are_spread() {
    let now = Instant::now();
    let dek = || Dek::take_from(&mut [7; 32]).unwrap();
    let wrapped = || WrappedKey { provider: Provider::Local, key_id: "local:a".into(), wrapped_dek: vec![1] };
    let none = EncryptionContext::default();
    let latest = CachedKey::new(DataKey::generated(dek(), wrapped(), &none, &Rc::default()).unwrap(), now, 255);
    assert_eq!(latest.consent(now + Duration::from_secs(234), &LIMITS), Consent::Fresh);
    assert_eq!(latest.consent(now + Duration::from_secs(236), &LIMITS), Consent::RefreshDue, "well before the end");
}

#[test]
fn an_opening_key_that_goes_is_dropped() {
    let (now, mut keys) = (Instant::now(), OpeningKeys::default());
    let (one, two, three) = (cached_key(now), cached_key(now), cached_key(now));
    keys.insert(Rc::clone(&one), now, &LIMITS);
    keys.insert(Rc::clone(&two), now, &LIMITS);
    assert!(find(&mut keys, &one));
    keys.insert(Rc::clone(&three), now, &LIMITS);
    let (has_one, has_two) = (find(&mut keys, &one), find(&mut keys, &two));
    assert!(has_one != has_two && find(&mut keys, &three), "two entries: one of the first two had to go");
    assert_eq!(Rc::strong_count(if has_one { &two } else { &one }), 1);
}

#[test]
fn an_insertion_drops_what_is_too_old() {
    let (now, mut keys) = (Instant::now(), OpeningKeys::default());
    let old = cached_key(now);
    keys.insert(Rc::clone(&old), now, &LIMITS);
    let later = now + 356 * SECOND;
    keys.insert(cached_key(later), later, &LIMITS);
    assert_eq!(Rc::strong_count(&old), 1);
    assert_eq!(keys.clear(), 1);
}

#[test]
fn cleared_and_removed_keys_are_gone() {
    let (now, mut keys) = (Instant::now(), OpeningKeys::default());
    let (one, two) = (cached_key(now), cached_key(now));
    keys.insert(Rc::clone(&one), now, &LIMITS);
    keys.insert(Rc::clone(&two), now, &LIMITS);
    keys.remove_if(|data_key| data_key.identity() == two.data_key().identity());
    assert!(!find(&mut keys, &two));
    assert_eq!(keys.clear(), 1);
    assert!(!find(&mut keys, &one));
    assert_eq!((Rc::strong_count(&one), Rc::strong_count(&two)), (1, 1));
}

fn new(cached: &Rc<CachedKey>, plaintext_bytes: usize, made: Instant) -> NewCurrent {
    NewCurrent { cached: Rc::clone(cached), made, lease: Lease::default(), plaintext_bytes, allowed_by: None }
}

#[test]
fn a_sealing_key_is_for_its_key_id_and_context_only() {
    let (now, mut keys) = (Instant::now(), SealingKeys::default());
    let none = EncryptionContext::default();
    let context = EncryptionContext::from_json(r#"{"a": "b"}"#).unwrap();
    let (one, two) = (cached_key(now), cached_key(now));
    keys.insert("local:a", &none, new(&one, 1, now), now, &LIMITS);
    keys.insert("local:a", &context, new(&two, 1, now), now, &LIMITS);
    assert!(is_current(take(&mut keys, "local:a", &none, 1, now, &LIMITS), &one));
    assert!(is_current(take(&mut keys, "local:a", &context, 1, now, &LIMITS), &two));
    assert!(is_current(take(&mut keys, "local:a", &none, 1, now, &LIMITS), &one));
    assert!(take(&mut keys, "local:b", &none, 1, now, &LIMITS).is_none());
    keys.insert("local:b", &none, new(&cached_key(now), 1, now), now, &LIMITS);
    let kept = [&none, &context]
        .iter()
        .filter(|context| take(&mut keys, "local:a", context, 1, now, &LIMITS).is_some())
        .count();
    assert_eq!(kept, 1, "two entries: one had to go");
}

#[test]
fn a_sealing_key_is_spent_by_uses() {
    let (now, mut keys, none) = (Instant::now(), SealingKeys::default(), EncryptionContext::default());
    let limits = Limits { max_uses: Some(3), ..LIMITS };
    let key = cached_key(now);
    keys.insert("local:a", &none, new(&key, 1, now), now, &limits);
    assert!(is_current(take(&mut keys, "local:a", &none, 1, now, &limits), &key));
    assert!(is_current(take(&mut keys, "local:a", &none, 1, now, &limits), &key));
    assert!(take(&mut keys, "local:a", &none, 1, now, &limits).is_none());
    assert!(is_current(keys.find_spent("local:a", &none), &key), "until there is a new one");
    keys.insert("local:a", &none, new(&cached_key(now), 1, now), now, &limits);
    assert_eq!(Rc::strong_count(&key), 1);
}

#[test]
fn a_sealing_key_is_spent_by_bytes() {
    let (now, mut keys, none) = (Instant::now(), SealingKeys::default(), EncryptionContext::default());
    let limits = Limits { max_bytes: Some(100), ..LIMITS };
    let key = cached_key(now);
    keys.insert("local:a", &none, new(&key, 60, now), now, &limits);
    assert!(is_current(take(&mut keys, "local:a", &none, 40, now, &limits), &key));
    assert!(take(&mut keys, "local:a", &none, 1, now, &limits).is_none());
    // A value above the limit has a data key to itself.
    keys.insert("local:a", &none, new(&cached_key(now), 1_000, now), now, &limits);
    assert!(take(&mut keys, "local:a", &none, 0, now, &limits).is_none());
}

#[test]
fn a_sealing_key_is_spent_when_its_lease_is() {
    let (now, mut keys, none) = (Instant::now(), SealingKeys::default(), EncryptionContext::default());
    let key = cached_key(now);
    let leased = |uses, bytes| NewCurrent { lease: Lease { uses, bytes }, ..new(&key, 1, now) };
    keys.insert("local:a", &none, leased(Some(2), None), now, &LIMITS);
    assert!(is_current(take(&mut keys, "local:a", &none, 1, now, &LIMITS), &key));
    assert!(take(&mut keys, "local:a", &none, 1, now, &LIMITS).is_none());
    keys.insert("local:a", &none, leased(None, Some(10)), now, &LIMITS);
    assert!(is_current(take(&mut keys, "local:a", &none, 9, now, &LIMITS), &key));
    assert!(take(&mut keys, "local:a", &none, 1, now, &LIMITS).is_none());
    keys.insert("local:a", &none, leased(Some(9), None), now, &Limits { max_uses: Some(1), ..LIMITS });
    assert!(
        take(&mut keys, "local:a", &none, 1, now, &Limits { max_uses: Some(1), ..LIMITS }).is_none(),
        "the limit is smaller"
    );
}

#[test]
fn a_sealing_key_is_spent_by_age() {
    let (now, mut keys, none) = (Instant::now(), SealingKeys::default(), EncryptionContext::default());
    let key = cached_key(now);
    keys.insert("local:a", &none, new(&key, 1, now), now, &LIMITS);
    assert!(is_current(take(&mut keys, "local:a", &none, 1, now + 599 * SECOND, &LIMITS), &key));
    assert!(take(&mut keys, "local:a", &none, 1, now + 600 * SECOND, &LIMITS).is_none());
}

#[test]
fn a_refused_sealing_key_is_gone_for_all_purposes() {
    let (now, mut keys, none) = (Instant::now(), SealingKeys::default(), EncryptionContext::default());
    let key = cached_key(now);
    keys.insert("local:a", &none, new(&key, 1, now), now, &LIMITS);
    keys.insert("alias/a", &none, new(&key, 1, now), now, &LIMITS);
    keys.remove_if(|data_key| data_key.key_id() == key.data_key().key_id());
    assert!(take(&mut keys, "local:a", &none, 1, now, &LIMITS).is_none());
    assert!(keys.find("alias/a", &none, 1, now, &LIMITS).is_none());
}

#[test]
fn cleared_sealing_keys_are_gone() {
    let (now, mut keys, none) = (Instant::now(), SealingKeys::default(), EncryptionContext::default());
    let key = cached_key(now);
    keys.insert("local:a", &none, new(&key, 1, now), now, &LIMITS);
    keys.clear();
    assert!(take(&mut keys, "local:a", &none, 1, now, &LIMITS).is_none());
    assert_eq!(Rc::strong_count(&key), 1);
}
