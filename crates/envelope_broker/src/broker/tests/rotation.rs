//! New data keys in the place of current ones.

use tokio::task::spawn_local;

use super::*;

fn in_context(key_id: &str, name: &str) -> Place {
    Place { context: context(name), ..place(key_id) }
}

#[test]
fn a_new_data_key_takes_the_place_of_the_current_one() {
    run(async {
        let kms = Kms::new();
        let broker = kms.broker();
        broker.seal(place(ALIAS), NO_LIMITS).await.unwrap();
        kms.0.alias_target.set(OTHER_KEY);
        assert_eq!(broker.seal(place(ALIAS), NO_LIMITS).await.unwrap().wrapped.key_id, KEY);
        let grant = broker.replace(place(ALIAS)).await.unwrap();
        assert_eq!((grant.wrapped.key_id.as_str(), grant.lease.uses), (OTHER_KEY, Some(0)));
        assert!(grant.consent.took_call && grant.age.is_zero());
        let grant = broker.seal(place(ALIAS), NO_LIMITS).await.unwrap();
        assert_eq!((grant.wrapped, grant.consent.took_call), (wrapped(OTHER_KEY, 2), false));
        // What was sealed before still opens without a call.
        assert!(!broker.open(name(KEY, 1), TERMS).await.unwrap().consent.took_call);
    });
}

#[test]
fn one_that_cannot_be_made_leaves_the_one_before() {
    run(async {
        let kms = Kms::new();
        let broker = kms.broker();
        broker.seal(place(KEY), NO_LIMITS).await.unwrap();
        kms.fail_generate(KmsErrorKind::TimedOut);
        assert_eq!(kind_of(broker.replace(place(KEY)).await), KmsErrorKind::TimedOut);
        assert_eq!(number_of(&broker.seal(place(KEY), NO_LIMITS).await.unwrap().dek), 1);
    });
}

#[test]
fn what_was_under_way_before_does_not_take_its_place() {
    run(async {
        let kms = Kms::new();
        let broker = kms.broker();
        kms.block([1]);
        let before = {
            let broker = Rc::clone(&broker);
            spawn_local(async move { broker.seal(place(KEY), NO_LIMITS).await })
        };
        settle().await;
        assert_eq!(number_of(&broker.replace(place(KEY)).await.unwrap().dek), 2);
        kms.release(1);
        assert!(before.await.unwrap().is_ok());
        assert_eq!(number_of(&broker.seal(place(KEY), NO_LIMITS).await.unwrap().dek), 2);
    });
}

#[test]
fn what_was_under_way_when_all_were_retired_does_not_become_current() {
    for ends_first in [false, true] {
        run(async {
            let kms = Kms::new();
            let broker = kms.broker();
            kms.block([1]);
            let ask = || {
                let broker = Rc::clone(&broker);
                spawn_local(async move { broker.seal(in_context(KEY, "u"), NO_LIMITS).await })
            };
            let before = ask();
            settle().await;
            broker.retire(&place(KEY).key_id);
            if ends_first {
                kms.release(1);
                settle().await;
            }
            let after = ask();
            settle().await;
            assert_eq!(kms.calls(), (2, 0), "what was under way is neither joined nor kept");
            assert_eq!(number_of(&after.await.unwrap().unwrap().dek), 2);
            kms.release(1);
            assert_eq!(number_of(&before.await.unwrap().unwrap().dek), 1);
            assert_eq!(number_of(&ask().await.unwrap().unwrap().dek), 2);
        });
    }
}

#[test]
fn of_all_contexts_or_of_one() {
    run(async {
        let kms = Kms::new();
        let broker = kms.broker();
        let places = [in_context(KEY, "a"), in_context(KEY, "b"), in_context(ALIAS, "a"), in_context(OTHER_KEY, "a")];
        let numbers = async || {
            let mut numbers = Vec::new();
            for place in &places {
                numbers.push(number_of(&broker.seal(place.clone(), NO_LIMITS).await.unwrap().dek));
            }
            numbers
        };
        assert_eq!(numbers().await, [1, 2, 3, 4]);
        broker.replace(in_context(KEY, "a")).await.unwrap();
        assert_eq!(numbers().await, [5, 2, 3, 4]);
        broker.retire(&place(KEY).key_id);
        assert_eq!(
            kms.calls(),
            (5, 0),
            "nothing is made before it is needed: the provider may want an encryption context"
        );
        assert_eq!(numbers().await, [6, 7, 8, 4], "the alias names the same key");
        kms.0.alias_target.set(OTHER_KEY);
        broker.retire(&place(ALIAS).key_id);
        assert_eq!(numbers().await, [9, 10, 11, 4], "what the alias named until now");
        broker.retire(&place(ALIAS).key_id);
        assert_eq!(numbers().await, [9, 10, 12, 13], "and what it names now");
        broker.retire_all();
        assert_eq!(numbers().await, [14, 15, 16, 17]);
    });
}

#[test]
fn what_was_retired_serves_while_no_new_one_can_be_had() {
    run(async {
        let kms = Kms::new();
        let broker = kms.broker();
        broker.seal(place(KEY), NO_LIMITS).await.unwrap();
        broker.retire(&place(KEY).key_id);
        kms.fail_generate(KmsErrorKind::TimedOut);
        let grant = broker.seal(place(KEY), NO_LIMITS).await.unwrap();
        assert_eq!((number_of(&grant.dek), grant.consent.is_stale), (1, true));
        kms.fail_generate(None);
        assert_eq!(number_of(&broker.seal(place(KEY), NO_LIMITS).await.unwrap().dek), 3);
    });
}

#[test]
fn other_providers_make_the_next_data_keys_of_retired_ones() {
    run(async {
        let (kms, other) = (Kms::new(), Kms::new());
        let broker = kms.broker();
        broker.seal(place(KEY), NO_LIMITS).await.unwrap();
        kms.block([2]);
        let before = {
            let broker = Rc::clone(&broker);
            spawn_local(async move { broker.seal(in_context(KEY, "u"), NO_LIMITS).await })
        };
        settle().await;
        other.0.generated.set(100);
        other.fail_generate(KmsErrorKind::TimedOut);
        broker.set_providers(other.clone());
        assert!(!broker.seal(place(KEY), NO_LIMITS).await.unwrap().consent.took_call, "they may have the same keys");
        broker.retire_all();
        let grant = broker.seal(place(KEY), NO_LIMITS).await.unwrap();
        assert_eq!((number_of(&grant.dek), grant.consent.is_stale), (1, true), "while they are out of reach");
        other.fail_generate(None);
        assert_eq!(number_of(&broker.seal(place(KEY), NO_LIMITS).await.unwrap().dek), 102);
        assert_eq!(number_of(&broker.seal(place(KEY), NO_LIMITS).await.unwrap().dek), 102);
        kms.release(2);
        assert!(before.await.unwrap().is_ok());
        assert_eq!(number_of(&broker.seal(in_context(KEY, "u"), NO_LIMITS).await.unwrap().dek), 103);
        assert!(!broker.open(name(KEY, 1), TERMS).await.unwrap().consent.took_call, "plaintext is what it was");
    });
}
