//! Data keys that open values.

use tokio::task::spawn_local;
use zeroize::ZeroizeOnDrop;

use super::*;
use crate::store::Store;

#[test]
fn equal_requests_at_the_same_time_are_one_call() {
    run(async {
        let kms = Kms::new();
        let broker = kms.broker();
        kms.0.delay.set(Duration::from_millis(300));
        let asked: Vec<_> = (0..200)
            .map(|session| {
                let (broker, number) = (Rc::clone(&broker), 7 + session % 2);
                (number, spawn_local(async move { broker.open(name(KEY, number), TERMS).await }))
            })
            .collect();
        for (number, answer) in asked {
            let grant = answer.await.unwrap().unwrap();
            assert_eq!((number_of(&grant.dek), grant.key_id.as_str()), (number, KEY));
            assert!(grant.consent.took_call && !grant.consent.is_stale);
        }
        assert_eq!(kms.calls(), (0, 2));
        assert!(!broker.open(name(KEY, 7), TERMS).await.unwrap().consent.took_call);
        assert_eq!(kms.calls(), (0, 2));
    });
}

/// As after a refresh that a wrong provider has answered.
#[test]
fn a_data_key_that_is_not_the_one_committed_to_is_asked_for_again() {
    run(async {
        let kms = Kms::new();
        let broker = kms.broker();
        broker.seal(place(KEY), NO_LIMITS).await.unwrap();
        let wrong = || Rc::new(Held::new(dek(99), KEY.to_owned(), Instant::now()));
        broker.store.borrow_mut().hold(&Rc::new(name(KEY, 1)), &wrong());
        assert_eq!(number_of(&broker.open(name(KEY, 1), TERMS).await.unwrap().dek), 1);
        assert_eq!(kms.calls(), (1, 1));
        broker.store.borrow_mut().hold(&Rc::new(name(KEY, 1)), &wrong());
        let grant = broker.seal(place(KEY), NO_LIMITS).await.unwrap();
        assert_eq!((number_of(&grant.dek), kms.calls()), (1, (1, 2)), "what is sealed can be opened");
        // A value that was put together from parts of others.
        let (wrapped, context) = (wrapped(KEY, 1), context("t"));
        let commitment = Some(dek(2).commitment());
        let forged = Request::OpeningKey { wrapped, context, commitment, terms: TERMS };
        assert_eq!(kind_of(broker.answer(session(), forged).await), KmsErrorKind::WrappedKeyRejected);
        assert_eq!(number_of(&broker.open(name(KEY, 1), TERMS).await.unwrap().dek), 1);
    });
}

/// As when KMS is well again just before the request, but the call that it joins was begun before.
#[test]
fn what_a_call_from_before_the_request_has_wrong_is_asked_for_by_a_call_of_its_own() {
    run(async {
        let kms = Kms::new();
        let broker = kms.broker();
        kms.0.lies.set(1);
        kms.block([1]);
        let ask = || {
            let broker = Rc::clone(&broker);
            spawn_local(async move { broker.open(name(KEY, 7), TERMS).await })
        };
        let first = ask();
        settle().await;
        let joined = ask();
        settle().await;
        kms.release(1);
        assert_eq!(
            kind_of(first.await.unwrap()),
            KmsErrorKind::WrappedKeyRejected,
            "it was asked for after the request"
        );
        assert_eq!(number_of(&joined.await.unwrap().unwrap().dek), 7);
        assert_eq!(kms.calls(), (0, 2));
        assert!(!broker.open(name(KEY, 7), TERMS).await.unwrap().consent.took_call);
    });
}

#[test]
fn an_answer_does_not_take_the_place_of_a_younger_one() {
    run(async {
        let kms = Kms::new();
        let broker = kms.broker();
        broker.hold(name(KEY, 7), MINUTE * 95 / 100);
        kms.0.lies.set(1);
        kms.block([1]);
        broker.open(name(KEY, 7), TERMS).await.unwrap();
        settle().await;
        broker.hold(name(KEY, 7), Duration::ZERO);
        kms.release(1);
        settle().await;
        assert_eq!(number_of(&broker.open(name(KEY, 7), TERMS).await.unwrap().dek), 7);
        assert_eq!(kms.calls(), (0, 1));
    });
}

/// Whoever can store a value can have its data key asked for. That must not take it from the others, who may not get it back.
#[test]
fn a_forged_value_does_not_take_the_data_key_from_good_ones() {
    for outage in outages() {
        run(async {
            let kms = Kms::new();
            let broker = kms.broker();
            broker.hold(name(KEY, 7), Duration::ZERO);
            kms.fail_unwrap(outage.clone());
            let forged = |calls| {
                let (wrapped, context) = (wrapped(KEY, 7), context("t"));
                let terms = Terms { calls, ..TERMS };
                let commitment = Some(dek(2).commitment());
                broker.answer(session(), Request::OpeningKey { wrapped, context, commitment, terms })
            };
            assert_eq!(kind_of(forged(Calls::Ahead).await), outage);
            assert_eq!(number_of(&broker.open(name(KEY, 7), TERMS).await.unwrap().dek), 7);
            assert_eq!(kind_of(forged(Calls::None).await), KmsErrorKind::NoCallLeft);
            assert_eq!(kms.calls(), (0, 1));
            kms.fail_unwrap(None);
            assert_eq!(kind_of(forged(Calls::Ahead).await), KmsErrorKind::WrappedKeyRejected);
            assert_eq!(number_of(&broker.open(name(KEY, 7), TERMS).await.unwrap().dek), 7);
            assert_eq!(kms.calls(), (0, 2));
        });
    }
}

#[test]
fn a_scan_in_a_known_order_is_read_ahead_of() {
    run(async {
        let kms = Kms::new();
        let broker = kms.broker();
        for number in 0..40 {
            broker.open_for(1, name(KEY, number), TERMS).await.unwrap();
        }
        assert_eq!((kms.calls(), broker.unwrapped_ahead()), ((0, 40), 0));
        broker.flush();
        let mut waited = 0;
        for number in 0..40 {
            let grant = broker.open_for(2, name(KEY, number), TERMS).await.unwrap();
            assert_eq!(number_of(&grant.dek), number);
            waited += u64::from(grant.consent.took_call);
            settle().await;
        }
        assert_eq!(kms.calls(), (0, 80), "each is asked for once");
        assert_eq!((waited, broker.unwrapped_ahead()), (2, 38));
    });
}

/// What is in memory is waited for by nobody, and so no step of a scan, in whatever order.
#[test]
fn what_is_in_memory_leaves_the_known_order_as_it_is() {
    run(async {
        let kms = Kms::new();
        let broker = kms.broker();
        for number in (0..10).chain((0..10).rev()) {
            broker.open_for(1, name(KEY, number), TERMS).await.unwrap();
        }
        assert_eq!(kms.calls(), (0, 10));
        broker.flush();
        for number in 0..10 {
            broker.open_for(2, name(KEY, number), TERMS).await.unwrap();
            settle().await;
        }
        assert_eq!((kms.calls(), broker.unwrapped_ahead()), ((0, 20), 8), "in the order in which they were asked for");
    });
}

#[test]
fn a_data_key_is_asked_for_with_its_own_context_and_key_only() {
    run(async {
        let kms = Kms::new();
        let broker = kms.broker();
        broker.open(name(KEY, 7), TERMS).await.unwrap();
        broker.open(DekName { context: context("u"), ..name(KEY, 7) }, TERMS).await.unwrap();
        broker.open(name(OTHER_KEY, 7), TERMS).await.unwrap();
        broker.open(name(KEY, 8), TERMS).await.unwrap();
        assert_eq!(kms.calls(), (0, 4));
    });
}

#[test]
fn a_call_ends_with_the_last_of_those_who_wait_for_it() {
    run(async {
        let kms = Kms::new();
        let broker = kms.broker();
        kms.block([1]);
        let ask = || {
            let broker = Rc::clone(&broker);
            spawn_local(async move { broker.open(name(KEY, 7), TERMS).await })
        };
        let [first, second, third] = [ask(), ask(), ask()];
        settle().await;
        // The first one is the one that began it.
        first.abort();
        second.abort();
        settle().await;
        assert_eq!(kms.0.cancelled.get(), 0);
        let fourth = ask();
        settle().await;
        third.abort();
        settle().await;
        assert_eq!(kms.0.cancelled.get(), 0);
        kms.release(1);
        assert_eq!(number_of(&fourth.await.unwrap().unwrap().dek), 7);
        assert_eq!((kms.calls(), kms.0.cancelled.get()), ((0, 1), 0));

        broker.flush();
        kms.block([2]);
        let [fifth, sixth] = [ask(), ask()];
        settle().await;
        fifth.abort();
        sixth.abort();
        settle().await;
        assert_eq!((kms.calls(), kms.0.cancelled.get()), ((0, 2), 1), "nobody waits for it");
        assert!(ask().await.unwrap().is_ok());
        assert_eq!(kms.calls(), (0, 3));
    });
}

#[test]
fn consent_is_never_younger_than_it_is() {
    run(async {
        let kms = Kms::new();
        let broker = kms.broker();
        kms.block([1]);
        let before_call = Instant::now();
        let first = {
            let broker = Rc::clone(&broker);
            spawn_local(async move { broker.open(name(KEY, 7), TERMS).await })
        };
        settle().await;
        let call_began = Instant::now();
        tokio::time::sleep(Duration::from_millis(60)).await;
        let joined_at = Instant::now();
        let joined = {
            let broker = Rc::clone(&broker);
            spawn_local(async move { broker.open(name(KEY, 7), TERMS).await })
        };
        settle().await;
        kms.release(1);
        let first = first.await.unwrap().unwrap().consent;
        assert_eq!(first.given_at(before_call), before_call, "it was asked for this request");
        let joined = joined.await.unwrap().unwrap().consent;
        assert!(joined.given_at(joined_at) <= call_began, "it was asked for an earlier request");
        assert!(joined.given_at(joined_at) + Duration::from_millis(50) >= before_call, "and not long before");
        tokio::time::sleep(Duration::from_millis(20)).await;
        let later_at = Instant::now();
        let later = broker.open(name(KEY, 7), TERMS).await.unwrap().consent;
        assert!(!later.took_call && later.given_at(later_at) <= call_began);
        assert!(later.age >= Duration::from_millis(80));
    });
}

#[test]
fn a_data_key_is_refreshed_while_it_serves() {
    run(async {
        let kms = Kms::new();
        let broker = kms.broker();
        broker.hold(name(KEY, 7), MINUTE * 6 / 10);
        broker.open(name(KEY, 7), TERMS).await.unwrap();
        settle().await;
        assert_eq!(kms.calls(), (0, 0), "too early");
        broker.hold(name(KEY, 7), MINUTE * 95 / 100);
        kms.block([1]);
        for _ in 0..20 {
            let consent = broker.open(name(KEY, 7), TERMS).await.unwrap().consent;
            assert!(!consent.took_call && consent.age >= MINUTE * 95 / 100, "it does not wait");
            settle().await;
        }
        assert_eq!(kms.calls(), (0, 1));
        kms.release(1);
        settle().await;
        assert!(broker.open(name(KEY, 7), TERMS).await.unwrap().consent.age < MINUTE / 10);
        assert_eq!(kms.calls(), (0, 1));
    });
}

#[test]
fn a_refresh_that_fails_is_not_repeated_at_once_and_does_no_harm() {
    run(async {
        let kms = Kms::new();
        let broker = kms.broker();
        broker.hold(name(KEY, 7), MINUTE * 95 / 100);
        kms.fail_unwrap(KmsErrorKind::TimedOut);
        for _ in 0..20 {
            broker.open(name(KEY, 7), TERMS).await.unwrap();
            settle().await;
        }
        assert_eq!(kms.calls(), (0, 1));
        tokio::time::sleep(Duration::from_millis(1_050)).await;
        kms.fail_unwrap(None);
        broker.open(name(KEY, 7), TERMS).await.unwrap();
        settle().await;
        assert_eq!(kms.calls(), (0, 2));
    });
}

#[test]
fn an_outage_is_bridged_for_a_while() {
    for outage in outages() {
        run(async {
            let kms = Kms::new();
            let broker = kms.broker();
            kms.fail_unwrap(outage.clone());
            broker.hold(name(KEY, 7), MINUTE * 9);
            let grant = broker.open(name(KEY, 7), TERMS).await.unwrap();
            assert_eq!(number_of(&grant.dek), 7);
            assert!(grant.consent.is_stale && grant.consent.took_call && grant.consent.age >= MINUTE * 9);
            kms.0.breaker_is_open.set(true);
            assert!(!broker.open(name(KEY, 7), TERMS).await.unwrap().consent.took_call);
            assert_eq!(broker.stale_serves(), 2);
            broker.hold(name(KEY, 7), MINUTE * 10);
            assert_eq!(kind_of(broker.open(name(KEY, 7), TERMS).await), outage);
            let not_stale = Terms { stale_for: MINUTE, ..TERMS };
            broker.hold(name(KEY, 7), MINUTE);
            assert_eq!(kind_of(broker.open(name(KEY, 7), not_stale).await), outage);
            assert_eq!(kind_of(broker.open(name(KEY, 8), TERMS).await), outage);
            assert_eq!(broker.stale_serves(), 2);
        });
    }
}

#[test]
fn no_other_error_is_bridged() {
    for kind in [
        KmsErrorKind::NoCredentials("none".into()),
        KmsErrorKind::AccessDenied,
        KmsErrorKind::KeyUnusable,
        KmsErrorKind::NotFound,
        KmsErrorKind::WrappedKeyRejected,
        KmsErrorKind::InvalidRequest("no".into()),
        KmsErrorKind::UnexpectedAnswer("no".into()),
        KmsErrorKind::NoRegion,
        KmsErrorKind::LocalProviderOff,
        KmsErrorKind::Keyring("no".into()),
    ] {
        run(async {
            let kms = Kms::new();
            let broker = kms.broker();
            kms.fail_unwrap(kind.clone());
            broker.hold(name(KEY, 7), MINUTE * 2);
            assert_eq!(kind_of(broker.open(name(KEY, 7), TERMS).await), kind);
            assert_eq!(broker.stale_serves(), 0);
        });
    }
}

#[test]
fn what_was_asked_for_before_a_flush_is_not_kept_and_not_joined() {
    run(async {
        let kms = Kms::new();
        let broker = kms.broker();
        kms.block([1]);
        let ask = || {
            let broker = Rc::clone(&broker);
            spawn_local(async move { broker.open(name(KEY, 7), TERMS).await })
        };
        let before = ask();
        settle().await;
        broker.flush();
        let after = ask();
        settle().await;
        assert_eq!(kms.calls(), (0, 2), "the flush may have been for want of asking again");
        assert!(after.await.unwrap().is_ok());
        broker.flush();
        kms.release(1);
        assert!(before.await.unwrap().is_ok());
        assert_eq!(broker.sizes(), (0, 0));
    });
}

#[test]
fn pruning_drops_what_is_of_no_more_use() {
    let broker = Kms::new().broker();
    broker.hold(name(KEY, 1), MINUTE * 9);
    broker.hold(name(KEY, 2), MINUTE * 11);
    let old = Rc::downgrade(&broker.store.borrow_mut().held(&name(KEY, 2)).unwrap());
    broker.prune(MINUTE * 10, MINUTE);
    assert!(broker.has(&name(KEY, 1)) && !broker.has(&name(KEY, 2)));
    assert!(old.upgrade().is_none());
    let young = Rc::downgrade(&broker.store.borrow_mut().held(&name(KEY, 1)).unwrap());
    broker.flush();
    assert!(young.upgrade().is_none());
    assert_eq!(broker.sizes(), (0, 0));
}

#[test]
fn a_plaintext_that_nobody_holds_is_wiped() {
    const fn is_wiped_when_dropped<T: ZeroizeOnDrop>() {}
    is_wiped_when_dropped::<Dek>();
}

#[test]
fn the_store_is_bounded_in_memory_and_keeps_what_is_in_use() {
    let mut store = Store::new(1 << 20, 1);
    let in_use = Rc::new(name(KEY, 0));
    let held = Rc::new(Held::new(dek(0), KEY.to_owned(), Instant::now()));
    store.hold(&in_use, &held);
    for number in 1..20_000 {
        assert!(store.held(&in_use).is_some(), "{number}");
        let context = context(&number.to_string());
        let name = Rc::new(DekName { wrapped: wrapped(KEY, number), context: context.clone() });
        store.hold(&name, &held);
        let current = Rc::new(Current::new(name, dek(number).commitment(), Instant::now()));
        store.make_current(&Place { context, ..place(KEY) }, &current);
        assert!(store.used_bytes() <= 1 << 20);
    }
    let (held_count, current_count) = store.sizes();
    assert!((700..2_000).contains(&held_count) && (600..2_000).contains(&current_count), "{:?}", store.sizes());
    assert_eq!(Rc::strong_count(&held), held_count + 1);
    let [opening, sealing] = store.counts();
    assert_eq!(opening.evictions, 20_000 - held_count as u64);
    assert_eq!(sealing.evictions, 19_999 - current_count as u64);
    store.resize(1 << 19);
    assert!(store.used_bytes() <= 1 << 19 && store.sizes().0 > 300);
}

/// What a broker holds by default: with names as long as AWS's.
#[test]
fn there_is_room_for_a_hundred_thousand_tenants() {
    let mut store = Store::new(160 << 20, 1);
    let held = Rc::new(Held::new(dek(0), KEY.to_owned(), Instant::now()));
    for number in 0..100_000_u32 {
        let context = context(&format!("tenant number {number}"));
        let mut wrapped_dek = number.to_be_bytes().to_vec();
        wrapped_dek.resize(184, 0);
        let wrapped = WrappedKey { wrapped_dek, ..wrapped(KEY, 0) };
        let name = Rc::new(DekName { wrapped, context: context.clone() });
        store.hold(&name, &held);
        let current = Rc::new(Current::new(name, dek(0).commitment(), Instant::now()));
        store.make_current(&Place { context, ..place(KEY) }, &current);
    }
    assert_eq!(store.sizes(), (100_000, 100_000));
}

#[test]
fn what_was_evicted_and_is_asked_for_again_is_counted() {
    run(async {
        let broker = Kms::new().broker();
        for _ in 0..2 {
            for number in 0..3_000 {
                broker.open(name(KEY, number), TERMS).await.unwrap();
            }
        }
        let [opening, _] = broker.cache_counts();
        assert_eq!(opening.hits + opening.misses, 6_000);
        assert_eq!(opening.evictions, opening.misses - broker.sizes().0 as u64);
        assert!(opening.hits > 100, "a cycle over more than fits finds a part: {opening:?}");
        assert!(opening.evicted_needed > 1_000, "{opening:?}");
    });
}
