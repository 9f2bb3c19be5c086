//! The policy of a session, a rule a test: what is ready at once, what is asked first, and what an answer does. The simulation
//! (crates/simulation) looks for what these examples do not think of.

mod common;

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use envelope_core::allowed_keys::AllowedKeys;
use envelope_core::cache::bounded::Bounds;
use envelope_core::cache::{CachedKey, Limits};
use envelope_core::context::EncryptionContext;
use envelope_core::error::ValueError;
use envelope_core::format::{Envelope, NONCE_BYTES, ValueType};
use envelope_core::keys::{Dek, Provider, WrappedKey};
use envelope_core::policy::note::Note;
use envelope_core::policy::{Ask, BLIND_TIME, Epochs, Policy, PolicyError, StatementId, Step, Surroundings};
use envelope_core::request::{
    Calls, ConsentAge, KmsError, KmsErrorKind, Lease, OpeningGrant, Operation, Reply, Request, SealingGrant,
};
use envelope_core::value::DataKey;

use common::random_bytes;

const KEY: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const TTL: Duration = Duration::from_secs(256);
const STALE: Duration = Duration::from_secs(100);
const SECOND: Duration = Duration::from_secs(1);
/// How far the coarse clock is behind.
const TICK: Duration = Duration::from_millis(10);

/// What a session sees, set by the test.
struct World {
    now: Cell<Instant>,
    epochs: Cell<Option<Epochs>>,
    /// The list of allowed keys, and its generation; `None`: all.
    allowed: Cell<(Option<&'static str>, u64)>,
    max_calls: Cell<Option<u64>>,
    statement: Cell<i64>,
}

impl World {
    fn new() -> Self {
        Self {
            now: Cell::new(Instant::now()),
            epochs: Cell::new(Some(Epochs::default())),
            allowed: Cell::default(),
            max_calls: Cell::default(),
            statement: Cell::default(),
        }
    }

    fn pass(&self, time: Duration) {
        self.now.set(self.now.get() + time);
    }

    fn allow(&self, list: &'static str) {
        self.allowed.set((Some(list), self.allowed.get().1 + 1));
    }

    fn flush(&self) {
        let epochs = self.epochs.get().unwrap();
        self.epochs.set(Some(Epochs { flushes: epochs.flushes + 1, ..epochs }));
    }

    fn replace(&self) {
        let epochs = self.epochs.get().unwrap();
        self.epochs.set(Some(Epochs { replacements: epochs.replacements + 1, ..epochs }));
    }
}

impl Surroundings for World {
    fn now(&self) -> Instant {
        self.now.get()
    }

    fn coarse_now(&self) -> Instant {
        self.now.get() - TICK
    }

    fn epochs(&self) -> Option<Epochs> {
        self.epochs.get()
    }

    fn ttl(&self) -> Duration {
        TTL
    }

    fn limits(&self) -> Limits {
        Limits {
            bounds: Bounds { entries: 16, bytes: usize::MAX },
            ttl: TTL,
            stale_if_unreachable: STALE,
            max_age: Duration::from_secs(3_600),
            max_uses: None,
            max_bytes: None,
        }
    }

    fn call_timeout(&self) -> Duration {
        10 * SECOND
    }

    fn allowed_keys_generation(&self) -> u64 {
        self.allowed.get().1
    }

    fn allowed_keys(&self) -> AllowedKeys {
        self.allowed.get().0.map_or_else(AllowedKeys::all, |list| AllowedKeys::parse(list).unwrap())
    }

    fn max_calls(&self) -> Option<u64> {
        self.max_calls.get()
    }

    fn statement(&self) -> StatementId {
        StatementId { statement: self.statement.get(), transaction: 0 }
    }
}

/// A value, and what opens it.
struct Value {
    bytes: Vec<u8>,
    dek: Dek,
}

impl Value {
    fn new() -> Self {
        let dek = Dek::take_from(&mut random_bytes(32)).unwrap();
        let data_key =
            DataKey::generated(dek.copy(), wrapped(), &EncryptionContext::default(), &Rc::default()).unwrap();
        let mut bytes = vec![0; data_key.value_bytes(1)];
        let nonce = random_bytes(NONCE_BYTES).try_into().unwrap();
        data_key.seal(ValueType::Text, &nonce, None, b"a", &mut bytes);
        Self { bytes, dek }
    }

    fn grant(&self, consent: ConsentAge) -> Result<Reply, KmsError> {
        Ok(Reply::Opening(OpeningGrant { dek: self.dek.copy(), key_id: KEY.into(), consent }))
    }

    fn just_granted(&self) -> Result<Reply, KmsError> {
        self.grant(ConsentAge::JUST_GIVEN)
    }
}

fn wrapped() -> WrappedKey {
    WrappedKey { provider: Provider::AwsKms, key_id: KEY.into(), wrapped_dek: random_bytes(60) }
}

/// What KMS itself says.
fn failed(kind: KmsErrorKind) -> Result<Reply, KmsError> {
    let mut error = KmsError::new(kind, Operation::Decrypt, KEY);
    error.metadata.code = Some("SomeException".into());
    Err(error)
}

/// A session in a world.
struct Session {
    policy: Policy<()>,
    world: World,
}

impl Session {
    fn new() -> Self {
        let world = World::new();
        Self { policy: Policy::new(&world, 1, 1), world }
    }

    /// One that has opened a value.
    fn with(value: &Value) -> Self {
        let mut session = Self::new();
        let ask = session.asks_to_open(value);
        assert!(session.told(ask, value.just_granted()).is_ok());
        session
    }

    fn open(&mut self, value: &Value) -> Result<Step<()>, PolicyError> {
        self.policy.open(&Envelope::parse(&value.bytes).unwrap().head, &self.world)
    }

    fn opens(&mut self, value: &Value) -> bool {
        matches!(self.open(value), Ok(Step::Ready(_)))
    }

    fn asks_to_open(&mut self, value: &Value) -> Ask {
        match self.open(value) {
            Ok(Step::Ask(ask)) => ask,
            Ok(_) => panic!("nothing is asked"),
            Err(error) => panic!("{error}"),
        }
    }

    fn asks_to_seal(&mut self) -> Ask {
        match self.policy.seal(KEY, &EncryptionContext::default(), 1, &self.world) {
            Ok(Step::Ask(ask)) => ask,
            Ok(_) => panic!("nothing is asked"),
            Err(error) => panic!("{error}"),
        }
    }

    fn seals(&mut self) -> bool {
        matches!(self.policy.seal(KEY, &EncryptionContext::default(), 1, &self.world), Ok(Step::Ready(_)))
    }

    /// The data key, if that is what the answer brings.
    fn told(&mut self, ask: Ask, reply: Result<Reply, KmsError>) -> Result<Rc<CachedKey>, PolicyError> {
        match self.policy.answered(ask, reply, &self.world)? {
            Step::Ready(cached) => Ok(cached),
            _ => panic!("another question"),
        }
    }
}

fn sealing_grant() -> Result<Reply, KmsError> {
    Ok(Reply::Sealing(SealingGrant {
        dek: Dek::take_from(&mut random_bytes(32)).unwrap(),
        wrapped: wrapped(),
        age: Duration::ZERO,
        lease: Lease::default(),
        consent: ConsentAge::JUST_GIVEN,
    }))
}

#[test]
fn a_data_key_is_asked_for_once_and_again_when_its_time_is_up() {
    let value = Value::new();
    let mut session = Session::with(&value);
    session.world.pass(TTL - SECOND);
    assert!(session.opens(&value));
    // What is fresh is told by the coarse clock.
    session.world.pass(SECOND + TICK);
    let ask = session.asks_to_open(&value);
    assert!(ask.is_to_open());
    assert!(session.told(ask, value.just_granted()).is_ok());
    session.world.pass(TTL - SECOND);
    assert!(session.opens(&value));
}

#[test]
fn a_data_key_in_use_is_refreshed_once_before_its_time_is_up() {
    let value = Value::new();
    let mut session = Session::with(&value);
    session.world.pass(TTL - SECOND);
    assert!(session.opens(&value) && session.opens(&value));
    let [Note::Refresh(_)] = &session.policy.take_notes()[..] else { panic!("one refresh") };
}

#[test]
fn consent_counts_from_when_the_provider_was_asked() {
    let value = Value::new();
    let mut session = Session::new();
    let ask = session.asks_to_open(&value);
    // The broker was asked by somebody else that long ago.
    let consent = ConsentAge { age: TTL - SECOND, is_stale: false, took_call: false, calls: 0 };
    assert!(session.told(ask, value.grant(consent)).is_ok());
    session.world.pass(SECOND);
    session.asks_to_open(&value);
}

#[test]
fn an_outage_is_served_through_within_its_bound_and_no_longer() {
    let value = Value::new();
    let mut session = Session::with(&value);
    session.world.pass(TTL);
    let ask = session.asks_to_open(&value);
    assert!(session.told(ask, failed(KmsErrorKind::TimedOut)).is_ok());
    let [Note::ServedStale { decided: Some(Operation::Decrypt), key_id }] = &session.policy.take_notes()[..] else {
        panic!("it is noted")
    };
    assert_eq!(key_id, KEY);
    session.world.pass(STALE);
    let ask = session.asks_to_open(&value);
    let error = session.told(ask, failed(KmsErrorKind::TimedOut)).err();
    assert!(matches!(error, Some(PolicyError::Kms(error)) if error.kind == KmsErrorKind::TimedOut));
}

#[test]
fn nothing_is_served_past_its_bound_be_it_by_a_tick() {
    let value = Value::new();
    let mut session = Session::with(&value);
    session.world.pass(TTL + STALE - TICK);
    let ask = session.asks_to_open(&value);
    assert!(session.told(ask, failed(KmsErrorKind::TimedOut)).is_ok());
    assert!(session.opens(&value), "the outage is known");
    session.world.pass(TICK);
    session.asks_to_open(&value);
}

#[test]
fn a_refusal_drops_the_data_key_whatever_time_it_had() {
    let value = Value::new();
    let mut session = Session::with(&value);
    // About another value of the same key.
    let ask = session.asks_to_open(&Value::new());
    assert!(session.told(ask, failed(KmsErrorKind::KeyUnusable)).is_err());
    assert!(matches!(&session.policy.take_notes()[..], [Note::Refused(error)] if error.key_id == KEY));
    session.asks_to_open(&value);
}

#[test]
fn an_answer_from_before_a_refusal_is_not_used() {
    let (value, other) = (Value::new(), Value::new());
    let mut session = Session::new();
    let (early, late) = (session.asks_to_open(&value), session.asks_to_open(&other));
    assert!(session.told(late, failed(KmsErrorKind::KeyUnusable)).is_err());
    assert!(session.told(early, value.just_granted()).is_err());
    assert!(!session.opens(&value));
}

#[test]
fn a_wrapped_key_that_was_rejected_is_one_error_and_is_not_asked_about_again_at_once() {
    let value = Value::new();
    let mut session = Session::new();
    let ask = session.asks_to_open(&value);
    let error = session.told(ask, failed(KmsErrorKind::WrappedKeyRejected)).err();
    assert_eq!(error, Some(PolicyError::Value(ValueError::AuthenticationFailed)));
    assert_eq!(session.open(&value).err(), error);
    session.world.pass(11 * SECOND);
    session.asks_to_open(&value);
}

#[test]
fn a_data_key_that_the_value_does_not_commit_to_is_refused() {
    let value = Value::new();
    let mut session = Session::new();
    let ask = session.asks_to_open(&value);
    let error = session.told(ask, Value::new().just_granted()).err();
    assert_eq!(error, Some(PolicyError::Value(ValueError::AuthenticationFailed)));
}

#[test]
fn a_flush_is_seen_before_the_next_value_and_by_answers_under_way() {
    let value = Value::new();
    let mut session = Session::with(&value);
    session.world.flush();
    let ask = session.asks_to_open(&value);
    session.world.flush();
    // For the value at hand, which was asked for before the flush; not kept.
    assert!(session.told(ask, value.just_granted()).is_ok());
    session.asks_to_open(&value);
}

#[test]
fn who_cannot_see_flushes_keeps_a_data_key_for_a_moment_only() {
    let value = Value::new();
    let mut session = Session::new();
    session.world.epochs.set(None);
    let ask = session.asks_to_open(&value);
    assert!(session.told(ask, value.just_granted()).is_ok());
    assert!(session.opens(&value));
    session.world.pass(BLIND_TIME);
    session.asks_to_open(&value);
}

#[test]
fn a_replacement_ends_sealing_and_not_opening() {
    let value = Value::new();
    let mut session = Session::with(&value);
    let ask = session.asks_to_seal();
    assert!(session.told(ask, sealing_grant()).is_ok());
    assert!(session.seals());
    session.world.replace();
    session.asks_to_seal();
    assert!(session.opens(&value));
}

#[test]
fn the_list_of_allowed_keys_is_looked_at_for_each_value() {
    let value = Value::new();
    let mut session = Session::with(&value);
    session.world.allow("local:b");
    assert_eq!(session.open(&value).err(), Some(PolicyError::KeyNotAllowed(KEY.into())));
    let error = session.policy.seal(KEY, &EncryptionContext::default(), 1, &session.world).err();
    assert_eq!(error, Some(PolicyError::KeyNotAllowed(KEY.into())));
    session.world.allow(KEY);
    assert!(session.opens(&value));
}

#[test]
fn the_list_may_change_while_a_question_is_under_way() {
    let value = Value::new();
    let mut session = Session::new();
    let ask = session.asks_to_open(&value);
    session.world.allow("local:b");
    assert_eq!(session.told(ask, value.just_granted()).err(), Some(PolicyError::KeyNotAllowed(KEY.into())));
}

#[test]
fn a_statement_without_calls_left_asks_for_what_takes_none() {
    let (value, other) = (Value::new(), Value::new());
    let mut session = Session::new();
    session.world.max_calls.set(Some(1));
    let ask = session.asks_to_open(&value);
    assert!(session.told(ask, value.just_granted()).is_ok());
    let ask = session.asks_to_open(&other);
    let Request::OpeningKey { terms, .. } = ask.request() else { panic!("another question") };
    assert_eq!(terms.calls, Calls::None);
    assert_eq!(session.told(ask, failed(KmsErrorKind::NoCallLeft)).err(), Some(PolicyError::TooManyCalls(1)));
    // The next statement.
    session.world.statement.set(1);
    let ask = session.asks_to_open(&other);
    assert!(session.told(ask, other.just_granted()).is_ok());
}

#[test]
fn what_took_no_call_is_not_counted() {
    let value = Value::new();
    let mut session = Session::new();
    let ask = session.asks_to_open(&value);
    let consent = ConsentAge { age: SECOND, is_stale: false, took_call: false, calls: 0 };
    assert!(session.told(ask, value.grant(consent)).is_ok());
    assert_eq!(session.policy.budget().calls(&session.world), [0; 3]);
    session.world.flush();
    let ask = session.asks_to_open(&value);
    assert!(session.told(ask, value.just_granted()).is_ok());
    assert_eq!(session.policy.budget().calls(&session.world), [1; 3]);
}

#[test]
fn a_data_key_without_its_wrapped_form_seals_nothing() {
    let mut session = Session::new();
    let ask = session.asks_to_seal();
    let Ok(Reply::Sealing(mut grant)) = sealing_grant() else { unreachable!() };
    grant.wrapped.wrapped_dek.clear();
    assert!(session.told(ask, Ok(Reply::Sealing(grant))).is_err());
    session.asks_to_seal();
}
