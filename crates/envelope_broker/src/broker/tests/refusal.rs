//! A provider that has answered, and says no.

use super::*;

const NAMES: [&str; 3] = [KEY, REPLICA, OTHER_KEY];

fn with_three_keys(kms: &Kms) -> Rc<Broker<Kms>> {
    let broker = kms.broker();
    for (number, key_id) in (1..).zip(NAMES) {
        let current = Place { context: context(key_id), ..place(key_id) };
        broker.hold_current(current, name(key_id, number), Duration::ZERO, Duration::ZERO);
    }
    broker
}

#[test]
fn drops_all_data_keys_of_the_key_and_none_of_its_replicas() {
    for kind in [KmsErrorKind::KeyUnusable, KmsErrorKind::NotFound] {
        run(async {
            let kms = Kms::new();
            let broker = with_three_keys(&kms);
            kms.fail_unwrap(kind.clone());
            let elsewhere = DekName { context: context("u"), ..name(KEY, 9) };
            assert_eq!(kind_of(broker.open(elsewhere, TERMS).await), kind);
            assert!(!broker.has(&name(KEY, 1)) && broker.has(&name(REPLICA, 2)) && broker.has(&name(OTHER_KEY, 3)));
            assert_eq!(broker.sizes(), (2, 2));
        });
    }
}

/// A policy can allow a key in one encryption context and deny it in another. Whoever is denied must not take the data keys
/// from those who are not.
#[test]
fn who_is_denied_in_an_encryption_context_loses_the_data_keys_of_that_context() {
    run(async {
        let kms = Kms::new();
        let broker = with_three_keys(&kms);
        broker.hold(name(KEY, 8), Duration::ZERO);
        let in_context = |name: &str, number| DekName { context: context(name), ..super::name(KEY, number) };
        broker.hold(in_context("u", 7), Duration::ZERO);
        kms.fail_unwrap(KmsErrorKind::AccessDenied);
        assert_eq!(kind_of(broker.open(in_context("u", 9), TERMS).await), KmsErrorKind::AccessDenied);
        assert!(!broker.has(&in_context("u", 7)));
        assert_eq!(broker.sizes(), (4, 3));
        assert_eq!(kind_of(broker.open(name(REPLICA, 9), TERMS).await), KmsErrorKind::AccessDenied);
        assert!(broker.has(&name(KEY, 8)) && broker.has(&name(OTHER_KEY, 3)), "of the region that was asked");
    });
}

#[test]
fn a_refusal_in_the_background_counts_as_well() {
    run(async {
        let kms = Kms::new();
        let broker = with_three_keys(&kms);
        broker.hold(name(KEY, 9), MINUTE * 95 / 100);
        kms.fail_unwrap(KmsErrorKind::KeyUnusable);
        assert!(broker.open(name(KEY, 9), TERMS).await.is_ok());
        settle().await;
        assert_eq!(broker.sizes(), (2, 2));
        assert_eq!(kind_of(broker.open(name(KEY, 9), TERMS).await), KmsErrorKind::KeyUnusable);
    });
}

#[test]
fn a_rejected_data_key_goes_alone() {
    run(async {
        let kms = Kms::new();
        let broker = with_three_keys(&kms);
        broker.hold(name(KEY, 9), MINUTE * 95 / 100);
        kms.fail_unwrap(KmsErrorKind::WrappedKeyRejected);
        assert!(broker.open(name(KEY, 9), TERMS).await.is_ok());
        settle().await;
        assert!(!broker.has(&name(KEY, 9)));
        assert_eq!(broker.sizes(), (3, 3));
    });
}

#[test]
fn who_may_not_make_data_keys_may_still_unwrap_them() {
    run(async {
        let kms = Kms::new();
        let broker = with_three_keys(&kms);
        kms.fail_generate(KmsErrorKind::AccessDenied);
        assert_eq!(kind_of(broker.seal(place(KEY), NO_LIMITS).await), KmsErrorKind::AccessDenied);
        let (wrapped, context, to) = (wrapped(KEY, 1), context("t"), KeyId::parse(OTHER_KEY).unwrap());
        let rewrapped = broker.answer(session(), Request::Rewrap { wrapped, context, to }).await;
        assert_eq!(kind_of(rewrapped), KmsErrorKind::AccessDenied);
        assert_eq!(broker.sizes(), (3, 3));
    });
}

#[test]
fn a_key_that_cannot_make_data_keys_is_out_of_use_where_it_was_named() {
    for kind in [KmsErrorKind::KeyUnusable, KmsErrorKind::NotFound] {
        // The id of a multi-Region key alone does not say which region was asked.
        for (named, left) in [(KEY, (2, 2)), ("mrk-1234abcd12ab34cd56ef1234567890ab", (3, 3))] {
            run(async {
                let kms = Kms::new();
                let broker = with_three_keys(&kms);
                kms.fail_generate(kind.clone());
                assert_eq!(kind_of(broker.seal(place(named), NO_LIMITS).await), kind);
                assert!(broker.has(&name(OTHER_KEY, 3)));
                assert_eq!(broker.sizes(), left, "{named}");
            });
        }
    }
}

#[test]
fn an_alias_of_a_key_out_of_use_has_the_key_asked_again() {
    run(async {
        let kms = Kms::new();
        let broker = with_three_keys(&kms);
        broker.hold_current(place(ALIAS), name(KEY, 9), Duration::ZERO, Duration::ZERO);
        kms.fail_generate(KmsErrorKind::KeyUnusable);
        assert_eq!(kind_of(broker.replace(place(ALIAS)).await), KmsErrorKind::KeyUnusable);
        // The alias may point to another key by now: then the one before serves on.
        assert_eq!(number_of(&broker.seal(place(ALIAS), NO_LIMITS).await.unwrap().dek), 9);
        assert_eq!(kms.calls(), (1, 1));
        kms.fail_unwrap(KmsErrorKind::KeyUnusable);
        assert_eq!(kind_of(broker.replace(place(ALIAS)).await), KmsErrorKind::KeyUnusable);
        assert_eq!(kind_of(broker.seal(place(ALIAS), NO_LIMITS).await), KmsErrorKind::KeyUnusable);
        assert_eq!(broker.sizes(), (2, 2));
    });
}

#[test]
fn encryption_goes_on_where_decrypt_is_denied() {
    run(async {
        let kms = Kms::new();
        let broker = kms.broker();
        kms.fail_unwrap(KmsErrorKind::AccessDenied);
        assert_eq!(number_of(&broker.seal(place(KEY), NO_LIMITS).await.unwrap().dek), 1);
        // Its time is up, and it may not be unwrapped.
        broker.hold(name(KEY, 1), MINUTE);
        for _ in 0..10 {
            let grant = broker.seal(place(KEY), NO_LIMITS).await.unwrap();
            assert_eq!(number_of(&grant.dek), 2);
            assert!(!grant.consent.is_stale);
        }
        // Or it is refreshed in the background.
        broker.hold(name(KEY, 2), MINUTE * 95 / 100);
        assert_eq!(number_of(&broker.seal(place(KEY), NO_LIMITS).await.unwrap().dek), 2);
        settle().await;
        assert_eq!(number_of(&broker.seal(place(KEY), NO_LIMITS).await.unwrap().dek), 3);
        assert_eq!(kms.calls(), (3, 2));
        assert_eq!(kind_of(broker.open(name(KEY, 1), TERMS).await), KmsErrorKind::AccessDenied);
    });
}

#[test]
fn what_was_made_seals_on_though_another_data_key_may_not_be_unwrapped() {
    run(async {
        let kms = Kms::new();
        let broker = kms.broker();
        kms.fail_unwrap(KmsErrorKind::AccessDenied);
        assert_eq!(number_of(&broker.seal(place(KEY), NO_LIMITS).await.unwrap().dek), 1);
        assert_eq!(kind_of(broker.open(name(KEY, 9), TERMS).await), KmsErrorKind::AccessDenied);
        assert_eq!(number_of(&broker.seal(place(KEY), NO_LIMITS).await.unwrap().dek), 1);
        assert_eq!(kms.calls(), (1, 1));
        // But it opens nothing.
        assert_eq!(kind_of(broker.open(name(KEY, 1), TERMS).await), KmsErrorKind::AccessDenied);
        assert_eq!(kms.calls(), (1, 2));
        kms.fail_unwrap(None);
        assert_eq!(number_of(&broker.open(name(KEY, 1), TERMS).await.unwrap().dek), 1);
        kms.fail_unwrap(KmsErrorKind::KeyUnusable);
        assert_eq!(kind_of(broker.open(name(KEY, 9), TERMS).await), KmsErrorKind::KeyUnusable);
        assert_eq!(broker.sizes(), (0, 0));
    });
}

#[test]
fn what_was_refused_is_not_served_because_the_next_one_cannot_be_had() {
    for kind in [KmsErrorKind::AccessDenied, KmsErrorKind::WrappedKeyRejected] {
        run(async {
            let kms = Kms::new();
            let broker = kms.broker();
            broker.hold_current(place(KEY), name(KEY, 9), MINUTE * 2, MINUTE * 2);
            kms.fail_unwrap(kind.clone());
            kms.fail_generate(KmsErrorKind::TimedOut);
            assert_eq!(kind_of(broker.seal(place(KEY), NO_LIMITS).await), KmsErrorKind::TimedOut);
            assert_eq!(broker.stale_serves(), 0);
        });
    }
}
