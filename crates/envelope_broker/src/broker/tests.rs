//! The broker over a provider that counts its calls, holds them up, and fails on demand.

mod opening;
mod refusal;
mod rotation;
mod sealing;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};

use envelope_core::context::EncryptionContext;
use envelope_core::keys::{Dek, KEY_BYTES, KeyId, Provider, WrappedKey};
use envelope_core::request::{
    Calls, KmsError, KmsErrorKind, OpeningGrant, Operation, Reply, Request, SealingGrant, SealingLimits, Terms,
};
use envelope_kms::{GeneratedKey, KeyProvider, Statistics, UnwrappedKey};
use tokio::sync::watch;

use super::Broker;
use crate::store::{Current, DekName, Held, Place};

const KEY: &str = "arn:aws:kms:us-west-2:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab";
const REPLICA: &str = "arn:aws:kms:us-east-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab";
const OTHER_KEY: &str = "arn:aws:kms:us-west-2:111122223333:key/715c0818-5825-4245-a755-138a6d9a11e6";
const ALIAS: &str = "alias/app";
const MEMORY: usize = 1 << 20;
const MINUTE: Duration = Duration::from_secs(60);
const TERMS: Terms =
    Terms { fresh_for: MINUTE, stale_for: Duration::from_secs(600), calls: Calls::Ahead, is_ahead: false };
const NO_LIMITS: SealingLimits =
    SealingLimits { max_age: Duration::from_secs(3600), max_uses: None, max_bytes: None, wanted_bytes: 10 };

/// A provider. Data key number n is 32 bytes that begin with n, and wrapped it is n. Clones are the same provider.
#[derive(Clone)]
struct Kms(Rc<State>);

struct State {
    /// Calls begun.
    generated: Cell<u64>,
    unwrapped: Cell<u64>,
    /// Calls that were dropped before their end.
    cancelled: Cell<u64>,
    /// Calls that wait, by their number, all operations together.
    blocked: watch::Sender<BTreeSet<u64>>,
    delay: Cell<Duration>,
    generate_error: RefCell<Option<KmsErrorKind>>,
    unwrap_error: RefCell<Option<KmsErrorKind>>,
    breaker_is_open: Cell<bool>,
    /// So many of the first calls to Decrypt are answered with the plaintext of another data key.
    lies: Cell<u64>,
    /// The key that the alias points to.
    alias_target: Cell<&'static str>,
}

/// Counts a call that does not come to its end.
struct InProgress<'a>(&'a Cell<u64>, bool);

impl Drop for InProgress<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() + u64::from(!self.1));
    }
}

impl Kms {
    fn new() -> Self {
        Self(Rc::new(State {
            generated: Cell::new(0),
            unwrapped: Cell::new(0),
            cancelled: Cell::new(0),
            blocked: watch::Sender::new(BTreeSet::new()),
            delay: Cell::new(Duration::ZERO),
            generate_error: RefCell::default(),
            unwrap_error: RefCell::default(),
            breaker_is_open: Cell::new(false),
            lies: Cell::new(0),
            alias_target: Cell::new(KEY),
        }))
    }

    fn broker(&self) -> Rc<Broker<Self>> {
        Broker::new(self.clone(), Statistics::new(), MEMORY)
    }

    /// Calls to GenerateDataKey and to Decrypt.
    fn calls(&self) -> (u64, u64) {
        (self.0.generated.get(), self.0.unwrapped.get())
    }

    fn block(&self, calls: impl IntoIterator<Item = u64>) {
        self.0.blocked.send_modify(|blocked| blocked.extend(calls));
    }

    fn release(&self, call: u64) {
        self.0.blocked.send_modify(|blocked| blocked.retain(|number| *number != call));
    }

    fn fail_generate(&self, kind: impl Into<Option<KmsErrorKind>>) {
        *self.0.generate_error.borrow_mut() = kind.into();
    }

    fn fail_unwrap(&self, kind: impl Into<Option<KmsErrorKind>>) {
        *self.0.unwrap_error.borrow_mut() = kind.into();
    }

    async fn call<T>(
        &self,
        count: &Cell<u64>,
        error: &RefCell<Option<KmsErrorKind>>,
        operation: Operation,
        key_id: &str,
        result: impl FnOnce(u64) -> T,
    ) -> Result<T, KmsError> {
        count.set(count.get() + 1);
        let begun = count.get();
        let number = self.0.generated.get() + self.0.unwrapped.get();
        let mut in_progress = InProgress(&self.0.cancelled, false);
        self.0.blocked.subscribe().wait_for(|blocked| !blocked.contains(&number)).await.expect("the sender lives");
        tokio::task::yield_now().await;
        if !self.0.delay.get().is_zero() {
            tokio::time::sleep(self.0.delay.get()).await;
        }
        in_progress.1 = true;
        match error.borrow().clone() {
            None => Ok(result(begun)),
            Some(kind) => {
                let breaker_was_open = self.0.breaker_is_open.get();
                let mut error = KmsError { breaker_was_open, ..KmsError::new(kind, operation, key_id) };
                error.metadata.code = Some("as KMS says".into());
                Err(error)
            }
        }
    }
}

impl KeyProvider for Kms {
    async fn generate_data_key(&self, key_id: &KeyId, _: &EncryptionContext) -> Result<GeneratedKey, KmsError> {
        let named = key_id.to_string();
        let key_id = if named == ALIAS { self.0.alias_target.get().to_owned() } else { named.clone() };
        self.call(&self.0.generated, &self.0.generate_error, Operation::GenerateDataKey, &named, |number| {
            GeneratedKey { dek: dek(number), wrapped: wrapped(&key_id, number) }
        })
        .await
    }

    async fn unwrap_key(&self, wrapped: &WrappedKey, _: &EncryptionContext) -> Result<UnwrappedKey, KmsError> {
        let number = u64::from_be_bytes(wrapped.wrapped_dek.as_slice().try_into().expect("a number"));
        let key_id = &wrapped.key_id;
        self.call(&self.0.unwrapped, &self.0.unwrap_error, Operation::Decrypt, key_id, |begun| UnwrappedKey {
            dek: dek(if begun > self.0.lies.get() { number } else { number + 1_000 }),
            key_id: key_id.clone(),
        })
        .await
    }

    async fn rewrap_key(
        &self,
        wrapped: &WrappedKey,
        _: &EncryptionContext,
        to: &KeyId,
    ) -> Result<WrappedKey, KmsError> {
        match self.0.generate_error.borrow().clone() {
            Some(kind) => Err(KmsError::new(kind, Operation::ReEncrypt, &to.to_string())),
            None => Ok(WrappedKey { key_id: to.to_string(), ..wrapped.clone() }),
        }
    }
}

/// Runs a test. One that asks its provider for ever fails, too.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let bounded = async { tokio::time::timeout(Duration::from_secs(20), test).await.expect("an end") };
    tokio::task::LocalSet::new().block_on(&runtime, bounded);
}

/// Lets the others go on until they wait for something.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

fn dek(number: u64) -> Dek {
    let mut bytes = [0; KEY_BYTES];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    Dek::take_from(&mut bytes).unwrap()
}

fn number_of(dek: &Dek) -> u64 {
    u64::from_be_bytes(*dek.as_bytes().first_chunk().unwrap())
}

fn wrapped(key_id: &str, number: u64) -> WrappedKey {
    let wrapped_dek = number.to_be_bytes().to_vec();
    WrappedKey { provider: Provider::AwsKms, key_id: key_id.to_owned(), wrapped_dek }
}

fn context(name: &str) -> EncryptionContext {
    EncryptionContext::from_json(&format!(r#"{{"table": "{name}"}}"#)).unwrap()
}

fn name(key_id: &str, number: u64) -> DekName {
    DekName { wrapped: wrapped(key_id, number), context: context("t") }
}

fn place(key_id: &str) -> Place {
    Place { key_id: KeyId::parse(key_id).unwrap(), context: context("t") }
}

/// A session that has never asked before: its way is not known.
fn session() -> i32 {
    thread_local! {
        static LAST: Cell<i32> = const { Cell::new(1_000) };
    }
    LAST.set(LAST.get() + 1);
    LAST.get()
}

/// A time in the past.
fn ago(age: Duration) -> Instant {
    Instant::now().checked_sub(age).unwrap()
}

impl Broker<Kms> {
    async fn open(self: &Rc<Self>, name: DekName, terms: Terms) -> Result<OpeningGrant, KmsError> {
        self.open_for(session(), name, terms).await
    }

    async fn open_for(self: &Rc<Self>, session: i32, name: DekName, terms: Terms) -> Result<OpeningGrant, KmsError> {
        let DekName { wrapped, context } = name;
        let number = u64::from_be_bytes(wrapped.wrapped_dek.as_slice().try_into().unwrap());
        let commitment = Some(dek(number).commitment());
        match self.answer(session, Request::OpeningKey { wrapped, context, commitment, terms }).await? {
            Reply::Opening(grant) => Ok(grant),
            _ => panic!("the reply is to this request"),
        }
    }

    async fn seal(self: &Rc<Self>, place: Place, limits: SealingLimits) -> Result<SealingGrant, KmsError> {
        self.seal_under(place, TERMS, limits).await
    }

    async fn seal_under(
        self: &Rc<Self>,
        place: Place,
        terms: Terms,
        limits: SealingLimits,
    ) -> Result<SealingGrant, KmsError> {
        let Place { key_id, context } = place;
        match self.answer(session(), Request::SealingKey { key_id, context, terms, limits }).await? {
            Reply::Sealing(grant) => Ok(grant),
            _ => panic!("the reply is to this request"),
        }
    }

    async fn replace(self: &Rc<Self>, place: Place) -> Result<SealingGrant, KmsError> {
        let Place { key_id, context } = place;
        match self.answer(session(), Request::ReplaceDek { key_id, context }).await? {
            Reply::Sealing(grant) => Ok(grant),
            _ => panic!("the reply is to this request"),
        }
    }

    /// As if the provider had been asked for a data key so long ago.
    fn hold(&self, name: DekName, age: Duration) {
        let number = u64::from_be_bytes(name.wrapped.wrapped_dek.as_slice().try_into().unwrap());
        let held = Held::new(dek(number), name.wrapped.key_id.clone(), ago(age));
        let mut store = self.store.borrow_mut();
        store.release(&name);
        store.hold(&Rc::new(name), &Rc::new(held));
    }

    /// As if a data key had been made so long ago, and its provider asked again since.
    fn hold_current(&self, place: Place, name: DekName, made: Duration, asked: Duration) {
        let number = u64::from_be_bytes(name.wrapped.wrapped_dek.as_slice().try_into().unwrap());
        let current = Rc::new(Current::new(Rc::new(name.clone()), dek(number).commitment(), ago(made)));
        self.store.borrow_mut().make_current(&place, &current);
        self.hold(name, asked);
    }

    fn has(&self, name: &DekName) -> bool {
        self.store.borrow_mut().held(name).is_some()
    }

    fn stale_serves(&self) -> u64 {
        self.statistics.snapshot().rows.iter().map(|row| row.counts.stale_serves).sum()
    }
}

fn kind_of<T>(result: Result<T, KmsError>) -> KmsErrorKind {
    result.err().expect("an error").kind
}

/// One of each kind that says nothing about the key.
fn outages() -> [KmsErrorKind; 3] {
    [KmsErrorKind::Unreachable("no route".into()), KmsErrorKind::TimedOut, KmsErrorKind::Throttled]
}
