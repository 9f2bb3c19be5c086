//! Data keys that seal new values.

use std::collections::HashMap;

use tokio::task::{JoinHandle, spawn_local};

use super::*;

fn ask(broker: &Rc<Broker<Kms>>, limits: SealingLimits) -> JoinHandle<Result<SealingGrant, KmsError>> {
    let broker = Rc::clone(broker);
    spawn_local(async move { broker.seal(place(KEY), limits).await })
}

#[test]
fn all_sessions_share_one_data_key() {
    run(async {
        let kms = Kms::new();
        let broker = kms.broker();
        kms.0.delay.set(Duration::from_millis(5));
        let asked: Vec<_> = (0..200).map(|_| ask(&broker, NO_LIMITS)).collect();
        for answer in asked {
            let grant = answer.await.unwrap().unwrap();
            assert_eq!((number_of(&grant.dek), grant.wrapped), (1, wrapped(KEY, 1)));
            assert_eq!((grant.lease.uses, grant.lease.bytes), (None, None));
            assert!(grant.consent.took_call);
        }
        assert!(!broker.seal(place(KEY), NO_LIMITS).await.unwrap().consent.took_call);
        assert!(!broker.open(name(KEY, 1), TERMS).await.unwrap().consent.took_call, "it opens values, too");
        assert_eq!(kms.calls(), (1, 0));
        let other = Place { context: context("u"), ..place(KEY) };
        assert_eq!(number_of(&broker.seal(other, NO_LIMITS).await.unwrap().dek), 2);
        assert_eq!(number_of(&broker.seal(place(ALIAS), NO_LIMITS).await.unwrap().dek), 3);
    });
}

#[test]
fn leases_never_exceed_the_limits() {
    for (max_uses, max_bytes) in [(1, 1), (2, 1 << 20), (15, 15), (16, 1000), (17, 64), (1000, 1 << 30), (3, 100)] {
        run(async {
            let kms = Kms::new();
            let broker = kms.broker();
            let mut total: HashMap<u64, (u64, u64)> = HashMap::new();
            for round in 0..8 {
                let asked: Vec<_> = (0..25)
                    .map(|session| {
                        let wanted_bytes = (session * 7 + round * 31) % 40;
                        let limits = SealingLimits {
                            max_uses: Some(max_uses),
                            max_bytes: Some(max_bytes),
                            wanted_bytes,
                            ..NO_LIMITS
                        };
                        (wanted_bytes, ask(&broker, limits))
                    })
                    .collect();
                for (wanted, answer) in asked {
                    let grant = answer.await.unwrap().unwrap();
                    let (uses, bytes) = (grant.lease.uses.unwrap(), grant.lease.bytes.unwrap());
                    assert!(uses >= 1 && bytes >= wanted.min(max_bytes));
                    let total = total.entry(number_of(&grant.dek)).or_default();
                    *total = (total.0 + uses, total.1 + bytes);
                }
            }
            for (uses, bytes) in total.values() {
                assert!(*uses <= max_uses && *bytes <= max_bytes, "{uses} of {max_uses}, {bytes} of {max_bytes}");
            }
        });
    }
}

#[test]
fn many_sessions_get_a_share() {
    run(async {
        let kms = Kms::new();
        let broker = kms.broker();
        let limits = SealingLimits { max_uses: Some(1_000), ..NO_LIMITS };
        for _ in 0..60 {
            assert_eq!(number_of(&broker.seal(place(KEY), limits).await.unwrap().dek), 1, "no session takes all");
        }
    });
}

#[test]
fn a_data_key_for_each_value() {
    run(async {
        let kms = Kms::new();
        let broker = kms.broker();
        let limits = SealingLimits { max_uses: Some(1), ..NO_LIMITS };
        let asked: Vec<_> = (0..50).map(|_| ask(&broker, limits)).collect();
        let mut numbers = BTreeSet::new();
        for answer in asked {
            numbers.insert(number_of(&answer.await.unwrap().unwrap().dek));
        }
        assert_eq!(numbers.len(), 50);
    });
}

#[test]
fn a_value_above_the_limit_gets_a_data_key_of_its_own() {
    run(async {
        let kms = Kms::new();
        let broker = kms.broker();
        let limits = SealingLimits { max_bytes: Some(1_000), ..NO_LIMITS };
        let large = SealingLimits { wanted_bytes: 5_000, ..limits };
        let first = broker.seal(place(KEY), limits).await.unwrap();
        let second = broker.seal(place(KEY), large).await.unwrap();
        let third = broker.seal(place(KEY), large).await.unwrap();
        let fourth = broker.seal(place(KEY), limits).await.unwrap();
        assert_eq!(second.lease.bytes, Some(1_000));
        let numbers: BTreeSet<_> = [first, second, third, fourth].iter().map(|grant| number_of(&grant.dek)).collect();
        assert_eq!(numbers.len(), 4);
    });
}

#[test]
fn limits_that_allow_nothing_end_all_the_same() {
    for (max_uses, max_bytes, max_age) in
        [(Some(0), None, MINUTE), (None, Some(0), MINUTE), (None, None, Duration::ZERO)]
    {
        run(async {
            let kms = Kms::new();
            let broker = kms.broker();
            let limits = SealingLimits { max_uses, max_bytes, max_age, wanted_bytes: 10 };
            let first = number_of(&broker.seal(place(KEY), limits).await.unwrap().dek);
            assert_ne!(number_of(&broker.seal(place(KEY), limits).await.unwrap().dek), first);
        });
    }
}

#[test]
fn a_provider_that_is_slower_than_a_data_key_lives_is_asked_once() {
    run(async {
        let kms = Kms::new();
        let broker = kms.broker();
        kms.0.delay.set(Duration::from_millis(30));
        // Where Decrypt is denied there is no second way to the data key.
        kms.fail_unwrap(KmsErrorKind::AccessDenied);
        let short = Duration::from_millis(10);
        let (terms, limits) = (
            Terms { fresh_for: short, stale_for: short, calls: Calls::Ahead, is_ahead: false },
            SealingLimits { max_age: short, ..NO_LIMITS },
        );
        let grant = broker.seal_under(place(KEY), terms, limits).await.unwrap();
        assert_eq!((number_of(&grant.dek), kms.calls()), (1, (1, 0)));
        let limits = SealingLimits { max_age: MINUTE, ..NO_LIMITS };
        let grant = broker.seal_under(place(KEY), terms, limits).await.unwrap();
        assert_eq!((number_of(&grant.dek), kms.calls()), (2, (2, 1)));
    });
}

#[test]
fn a_flush_while_it_is_made_does_not_make_it_anew() {
    run(async {
        let kms = Kms::new();
        let broker = kms.broker();
        kms.block([1]);
        let asked = ask(&broker, NO_LIMITS);
        settle().await;
        broker.flush();
        kms.release(1);
        assert_eq!(number_of(&asked.await.unwrap().unwrap().dek), 1);
        assert_eq!((kms.calls(), broker.sizes()), ((1, 0), (0, 0)), "and it is not kept");
    });
}

#[test]
fn the_next_one_is_made_while_this_one_serves() {
    let nearly_used_up = SealingLimits { max_uses: Some(1), ..NO_LIMITS };
    for (made, limits) in [(MINUTE * 57, NO_LIMITS), (Duration::ZERO, nearly_used_up)] {
        run(async {
            let kms = Kms::new();
            let broker = kms.broker();
            broker.hold_current(place(KEY), name(KEY, 9), made, Duration::ZERO);
            kms.block([1]);
            let grant = broker.seal(place(KEY), limits).await.unwrap();
            assert_eq!((number_of(&grant.dek), grant.consent.took_call), (9, false));
            assert!(grant.age >= made);
            settle().await;
            assert_eq!(kms.calls(), (1, 0));
            kms.release(1);
            settle().await;
            let grant = broker.seal(place(KEY), limits).await.unwrap();
            assert_eq!((number_of(&grant.dek), grant.consent.took_call), (1, false));
        });
    }
}

#[test]
fn it_is_tried_again_to_make_the_next_one() {
    run(async {
        let kms = Kms::new();
        let broker = kms.broker();
        broker.hold_current(place(KEY), name(KEY, 9), MINUTE * 57, Duration::ZERO);
        kms.fail_generate(KmsErrorKind::Throttled);
        for _ in 0..20 {
            assert_eq!(number_of(&broker.seal(place(KEY), NO_LIMITS).await.unwrap().dek), 9);
            settle().await;
        }
        assert_eq!(kms.calls(), (1, 0));
        tokio::time::sleep(Duration::from_millis(1_050)).await;
        kms.fail_generate(None);
        assert_eq!(number_of(&broker.seal(place(KEY), NO_LIMITS).await.unwrap().dek), 9);
        settle().await;
        assert_eq!(number_of(&broker.seal(place(KEY), NO_LIMITS).await.unwrap().dek), 2);
        assert_eq!(kms.calls(), (2, 0));
    });
}

#[test]
fn in_an_outage_a_spent_data_key_serves_on() {
    for outage in outages() {
        run(async {
            let kms = Kms::new();
            let broker = kms.broker();
            broker.hold_current(place(KEY), name(KEY, 9), MINUTE * 61, MINUTE * 5);
            kms.fail_generate(outage.clone());
            // Housekeeping does not take it away.
            broker.prune(TERMS.stale_for, NO_LIMITS.max_age);
            for breaker_is_open in [false, true] {
                kms.0.breaker_is_open.set(breaker_is_open);
                let grant = broker.seal(place(KEY), NO_LIMITS).await.unwrap();
                assert_eq!((number_of(&grant.dek), grant.lease.uses), (9, Some(1)));
                assert!(grant.consent.is_stale && grant.consent.age >= MINUTE * 5 && grant.age >= MINUTE * 61);
                assert_eq!(grant.consent.took_call, !breaker_is_open);
            }
            assert_eq!(broker.stale_serves(), 2);
            broker.hold(name(KEY, 9), TERMS.stale_for);
            assert_eq!(kind_of(broker.seal(place(KEY), NO_LIMITS).await), outage);
            broker.prune(TERMS.stale_for, NO_LIMITS.max_age);
            assert_eq!(broker.sizes(), (0, 0));
            kms.fail_generate(None);
            assert!(broker.seal(place(KEY), NO_LIMITS).await.is_ok());
        });
    }
}

#[test]
fn pruning_forgets_a_current_data_key_that_is_too_old_and_keeps_the_others() {
    let broker = Kms::new().broker();
    let other = Place { context: context("u"), ..place(KEY) };
    broker.hold_current(place(KEY), name(KEY, 1), MINUTE * 61, MINUTE * 11);
    broker.hold_current(other, name(KEY, 2), MINUTE * 59, MINUTE * 11);
    broker.prune(MINUTE * 10, MINUTE * 60);
    assert_eq!(broker.sizes(), (0, 1));
}

#[test]
fn a_current_data_key_whose_plaintext_is_gone_is_unwrapped_again() {
    run(async {
        let kms = Kms::new();
        let broker = kms.broker();
        broker.hold_current(place(KEY), name(KEY, 9), MINUTE, MINUTE * 11);
        broker.prune(MINUTE * 10, MINUTE * 60);
        let grant = broker.seal(place(KEY), NO_LIMITS).await.unwrap();
        assert_eq!((number_of(&grant.dek), kms.calls()), (9, (0, 1)));
    });
}

#[test]
fn the_longest_terms_and_limits_can_be_counted_with() {
    run(async {
        let broker = Kms::new().broker();
        let terms = Terms { fresh_for: Duration::MAX, stale_for: Duration::MAX, calls: Calls::Ahead, is_ahead: false };
        let limits = SealingLimits {
            max_age: Duration::MAX,
            max_uses: Some(u64::MAX),
            max_bytes: Some(u64::MAX),
            wanted_bytes: u64::MAX,
        };
        for _ in 0..3 {
            assert!(broker.seal_under(place(KEY), terms, limits).await.is_ok());
            assert!(broker.open(name(KEY, 9), terms).await.is_ok());
        }
    });
}
