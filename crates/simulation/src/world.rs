//! The steps of a history, and the sessions.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use envelope_broker::Broker;
use envelope_core::allowed_keys::AllowedKeys;
use envelope_core::cache::bounded::Bounds;
use envelope_core::cache::{CachedKey, Limits};
use envelope_core::context::EncryptionContext;
use envelope_core::format::{Envelope, ValueType};
use envelope_core::keys::KeyId;
use envelope_core::policy::StatementId;
use envelope_core::policy::note::Note;
use envelope_core::policy::{Ask, Epochs, Policy, PolicyError, Step, Surroundings};
use envelope_core::request::{Calls, KmsError, KmsErrorKind, Reply, Request};
use envelope_core::value::DataKey;
use envelope_kms::Statistics;
use fastrand::Rng;
use tokio::task::{JoinHandle, LocalSet};

use crate::clock::{self, TICK, now};
use crate::kms::{KEYS, Kms, Mood, number_of};
use crate::oracle::{Begun, Granted, Oracle, Use};
use crate::{Mistake, Report, Violation};

const SESSIONS: usize = 12;
const CONTEXTS: usize = 6;
const VALUES: usize = 512;
/// Room for some of the data keys, so that there are evictions.
const BROKER_MEMORY: usize = 64 * 1024;
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// What an outage that was seen may excuse, and a little more: see `envelope_core::cache`.
const OUTAGE_MEMORY: Duration = Duration::from_secs(75);
const PLAINTEXT: &[u8] = b"a text";

/// A request under way.
struct Pending {
    answer: Rc<RefCell<Option<Result<Reply, KmsError>>>>,
    task: JoinHandle<()>,
    request: Request,
    told: Granted,
    /// The statement that its calls count to.
    statement: StatementId,
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a session sees.
#[derive(Clone)]
struct View {
    epochs: Epochs,
    is_blind: bool,
    ttl: Duration,
    stale_for: Duration,
    max_uses: Option<u64>,
    max_age: Duration,
    entries: usize,
    /// Indices of keys; `None`: all.
    allowed: Option<Vec<usize>>,
    generation: u64,
    max_calls: Option<u64>,
    statement: StatementId,
    mistake: Option<Mistake>,
}

impl View {
    fn allows(&self, key: usize) -> bool {
        self.allowed.as_ref().is_none_or(|allowed| allowed.iter().any(|other| *other == key || (*other).min(key) == 2))
    }
}

impl Surroundings for View {
    fn now(&self) -> Instant {
        now()
    }

    fn coarse_now(&self) -> Instant {
        now() - TICK
    }

    fn epochs(&self) -> Option<Epochs> {
        let Epochs { flushes, replacements } = self.epochs;
        let flushes = if self.mistake == Some(Mistake::MissFlush) { flushes / 2 } else { flushes };
        (!self.is_blind).then_some(Epochs { flushes, replacements })
    }

    fn ttl(&self) -> Duration {
        self.ttl
    }

    fn limits(&self) -> Limits {
        let factor = if self.mistake == Some(Mistake::StalePastBound) { 2 } else { 1 };
        Limits {
            bounds: Bounds { entries: self.entries, bytes: usize::MAX },
            ttl: self.ttl,
            stale_if_unreachable: self.stale_for * factor,
            max_age: self.max_age,
            max_uses: self.max_uses,
            max_bytes: None,
        }
    }

    fn call_timeout(&self) -> Duration {
        CALL_TIMEOUT
    }

    fn allowed_keys_generation(&self) -> u64 {
        if self.mistake == Some(Mistake::OtherAllowedList) { 0 } else { self.generation }
    }

    fn allowed_keys(&self) -> AllowedKeys {
        match &self.allowed {
            None => AllowedKeys::all(),
            Some(keys) if keys.is_empty() => AllowedKeys::none(),
            Some(keys) => {
                let list = keys.iter().map(|key| KEYS[*key]).collect::<Vec<_>>().join(",");
                AllowedKeys::parse(&list).expect("key ids")
            }
        }
    }

    fn max_calls(&self) -> Option<u64> {
        self.max_calls.map(|calls| if self.mistake == Some(Mistake::DoubleBudget) { calls * 2 } else { calls })
    }

    fn statement(&self) -> StatementId {
        self.statement
    }
}

/// A value, and what it is of.
#[derive(Clone)]
struct Value {
    bytes: Vec<u8>,
    is_forged: bool,
}

enum Kind {
    Seal { key: usize, context: usize },
    Open(Value),
}

/// A value that waits for an answer.
struct Waiting {
    kind: Kind,
    begun: Begun,
    ask: Ask,
    pending: Pending,
}

struct Session {
    policy: Policy<Pending>,
    view: View,
    has_broker: bool,
    oracle: Oracle,
    last_outage: Option<Instant>,
    /// Calls that were begun because of the statement, as far as it was told.
    calls: u64,
    waiting: Option<Waiting>,
    random: Rng,
}

/// Everything.
pub struct World {
    seed: u64,
    step: u64,
    random: Rng,
    mistake: Option<Mistake>,
    tasks: LocalSet,
    woken: Arc<Woken>,
    kms: Kms,
    broker: Rc<Broker<Kms>>,
    broker_flushes: u64,
    epochs: Epochs,
    contexts: Vec<EncryptionContext>,
    sessions: Vec<Session>,
    values: Vec<Value>,
    /// Values sealed with each data key, but for those in an outage.
    uses: HashMap<u64, u64>,
    max_uses: Option<u64>,
    statements: i64,
    report: Report,
    /// An invariant that was violated where nothing can be returned.
    broken: Option<String>,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl World {
    pub fn new(seed: u64, mistake: Option<Mistake>) -> Self {
        // The numbers are those of no real time: a history may jump for long.
        clock::start();
        let mut random = Rng::with_seed(seed);
        let kms = Kms::default();
        let context = |number| EncryptionContext::from_json(&format!(r#"{{"tenant":"{number}"}}"#)).expect("a context");
        let max_uses = random.bool().then(|| random.u64(20..400));
        let mut world = Self {
            seed,
            step: 0,
            mistake,
            tasks: LocalSet::new(),
            woken: Arc::new(Woken(AtomicBool::new(true))),
            broker: Broker::with_clock(kms.clone(), Statistics::new(), BROKER_MEMORY, now, 0),
            kms,
            broker_flushes: 0,
            epochs: Epochs::default(),
            contexts: (0..CONTEXTS).map(context).collect(),
            sessions: Vec::new(),
            values: Vec::new(),
            uses: HashMap::new(),
            max_uses,
            statements: 0,
            report: Report::default(),
            broken: None,
            random,
        };
        for _ in 0..SESSIONS {
            let session = world.new_session();
            world.sessions.push(session);
        }
        world
    }

    pub fn play(mut self, steps: u64) -> Result<Report, Violation> {
        for step in 0..steps {
            self.step = step;
            self.one_step().map_err(|what| self.violation(what))?;
            if let Some(what) = self.broken.take() {
                return Err(self.violation(what));
            }
        }
        self.report.steps = steps;
        self.open_all().map_err(|what| self.violation(what))?;
        self.report.calls = self.kms.0.borrow().calls;
        if self.report.calls_told > self.report.calls {
            let Report { calls, calls_told, .. } = self.report;
            return Err(self.violation(format!("{calls_told} calls are counted, and {calls} were made")));
        }
        self.report.refusals = self.kms.0.borrow().refusals;
        Ok(self.report)
    }

    fn violation(&self, what: String) -> Violation {
        Violation { seed: self.seed, step: self.step, what }
    }

    fn one_step(&mut self) -> Result<(), String> {
        self.pass_some(0..20_000, Duration::from_micros(1));
        match self.random.u32(0..100_000) {
            0..92_000 => {
                let at = self.random.usize(0..SESSIONS);
                self.use_session(at)?;
            }
            92_000..99_600 => self.end_call(),
            99_600..99_700 => self.change_mood(),
            99_700..99_720 => {
                self.epochs.flushes += 1;
                self.report.flushes += 1;
            }
            99_720..99_740 => {
                let key = self.random.usize(0..KEYS.len());
                self.broker.retire(&KeyId::parse(KEYS[key]).expect("a key id"));
                self.epochs.replacements += 1;
            }
            99_740..99_840 => {
                let at = self.random.usize(0..SESSIONS);
                self.change_settings(at);
            }
            99_840..99_900 => {
                // Cancelled.
                let at = self.random.usize(0..SESSIONS);
                if let Some(waiting) = self.sessions[at].waiting.take() {
                    let session = &mut self.sessions[at];
                    session.policy.unanswered(&waiting.ask, &session.view);
                }
            }
            99_900..99_910 => {
                let at = self.random.usize(0..SESSIONS);
                self.sessions[at] = self.new_session();
            }
            99_910..99_912 => {
                self.broker = Broker::with_clock(self.kms.clone(), Statistics::new(), BROKER_MEMORY, now, 0);
            }
            99_912..99_930 => self.pass_some(1..120, Duration::from_secs(1)),
            99_930..99_932 => self.pass_some(1..20_000, Duration::from_secs(1)),
            _ => {
                self.broker.prune(Duration::from_secs(600), Duration::from_secs(900));
                let before = now().checked_sub(Duration::from_secs(4_000));
                for session in &mut self.sessions {
                    before.iter().for_each(|before| session.oracle.prune(*before));
                }
            }
        }
        Ok(())
    }

    fn pass_some(&mut self, some: Range<u64>, unit: Duration) {
        let some = self.random.u64(some) as u32;
        self.pass(unit * some);
    }

    fn pass(&mut self, time: Duration) {
        clock::advance(time);
    }

    fn end_call(&mut self) {
        let random = &mut self.random;
        if self.kms.end_call(|calls| random.usize(0..calls)) {
            self.run_tasks();
        }
    }

    /// Lets all tasks go on until they wait for KMS.
    fn run_tasks(&mut self) {
        let waker = Waker::from(Arc::clone(&self.woken));
        self.woken.0.store(true, Ordering::Relaxed);
        while self.woken.0.swap(false, Ordering::Relaxed) {
            let _ = Pin::new(&mut self.tasks).poll(&mut Context::from_waker(&waker));
        }
    }

    fn change_mood(&mut self) {
        const MOODS: [Mood; 8] = [
            Mood::Down,
            Mood::Throttling,
            Mood::DenyingDecrypt,
            Mood::Denying,
            Mood::Disabled,
            Mood::NotFound,
            Mood::LyingAboutPlaintext,
            Mood::EmptyBlob,
        ];
        let mood = if self.random.bool() { Mood::Well } else { self.random.choice(MOODS).expect("some") };
        let everywhere = self.random.u8(0..4) == 0;
        let key = self.random.usize(0..KEYS.len());
        let mut state = self.kms.0.borrow_mut();
        for (at, of_key) in state.moods.iter_mut().enumerate() {
            if everywhere || at == key {
                *of_key = Some(mood);
            }
        }
    }

    fn new_session(&mut self) -> Session {
        let random = &mut self.random;
        let view = View {
            epochs: self.epochs,
            is_blind: false,
            ttl: Duration::from_secs(random.u64(2..90)),
            stale_for: Duration::from_secs([0, 20, 400][random.usize(0..3)]),
            max_uses: self.max_uses,
            max_age: Duration::from_secs(900),
            entries: [2, 8, 1_000][random.usize(0..3)],
            allowed: None,
            generation: 0,
            max_calls: None,
            statement: StatementId::default(),
            mistake: self.mistake,
        };
        Session {
            policy: Policy::new(&view, random.u64(..), 1),
            has_broker: random.u8(0..4) > 0,
            oracle: Oracle::default(),
            last_outage: None,
            calls: 0,
            waiting: None,
            random: Rng::with_seed(random.u64(..)),
            view,
        }
    }

    fn change_settings(&mut self, at: usize) {
        let random = &mut self.random;
        let session = &mut self.sessions[at];
        match random.u8(0..6) {
            0 => session.view.ttl = Duration::from_secs(random.u64(2..90)),
            1 => session.has_broker = random.u8(0..4) > 0,
            2 => session.view.is_blind = random.u8(0..4) == 0,
            _ => {
                session.view.allowed =
                    random.bool().then(|| (0..KEYS.len()).filter(|_| random.bool()).collect::<Vec<_>>());
                session.view.generation += 1;
            }
        }
    }

    /// A session does a value, or looks for its answer.
    fn use_session(&mut self, at: usize) -> Result<(), String> {
        self.sessions[at].view.epochs = self.epochs;
        self.settle_refreshes(at)?;
        if let Some(waiting) = self.sessions[at].waiting.take() {
            let reply = waiting.pending.answer.borrow_mut().take();
            match reply {
                None => self.sessions[at].waiting = Some(waiting),
                Some(reply) => self.tell(at, waiting, reply)?,
            }
            return Ok(());
        }
        if self.random.u8(0..4) == 0 {
            self.statements += 1;
            let session = &mut self.sessions[at];
            session.view.statement =
                StatementId { statement: self.statements, transaction: self.statements / 8 * 8 + at as i64 };
            session.view.max_calls = (self.random.u8(0..3) == 0).then(|| self.random.u64(1..4));
            session.calls = 0;
        }
        let kind = if self.values.is_empty() || self.random.u8(0..5) < 2 {
            Kind::Seal { key: self.random.usize(0..KEYS.len()), context: self.random.usize(0..CONTEXTS) }
        } else {
            let value = self.values[self.random.usize(0..self.values.len())].clone();
            Kind::Open(if self.random.u8(..) == 0 { self.forge(value) } else { value })
        };
        self.begin(at, kind)
    }

    /// As somebody would forge a value who can store one: another wrapped data key, under whatever key, or another commitment.
    fn forge(&mut self, value: Value) -> Value {
        let mut bytes = value.bytes;
        if self.random.bool() {
            // The commitment to another data key stands behind six bytes.
            bytes[6] ^= self.random.u8(1..);
            return Value { bytes, is_forged: true };
        }
        let end = Envelope::parse(&bytes).expect("a value").head.as_bytes().len() - 24;
        for byte in &mut bytes[end - 8..end] {
            *byte = 0xff ^ self.random.u8(0..16);
        }
        Value { bytes, is_forged: true }
    }

    fn begin(&mut self, at: usize, kind: Kind) -> Result<(), String> {
        let session = &mut self.sessions[at];
        let step = match &kind {
            Kind::Seal { key, context } => {
                session.policy.seal(KEYS[*key], &self.contexts[*context], PLAINTEXT.len(), &session.view)
            }
            Kind::Open(value) => {
                let envelope = Envelope::parse(&value.bytes).expect("a value");
                session.policy.open(&envelope.head, &session.view)
            }
        };
        let begun = Begun { at: now(), epochs: self.epochs };
        self.proceed(at, kind, begun, step, false)
    }

    fn proceed(
        &mut self,
        at: usize,
        kind: Kind,
        begun: Begun,
        step: Result<Step<Pending>, PolicyError>,
        was_asked: bool,
    ) -> Result<(), String> {
        self.do_notes(at);
        match step {
            Ok(Step::Ready(cached)) => self.finish(at, kind, begun, &cached, was_asked),
            Ok(Step::Ask(ask)) => {
                let pending = self.spawn(at, ask.request().clone());
                self.sessions[at].waiting = Some(Waiting { kind, begun, ask, pending });
                Ok(())
            }
            Ok(Step::Await(pending, ask)) => {
                self.sessions[at].waiting = Some(Waiting { kind, begun, ask, pending });
                Ok(())
            }
            Err(error) => {
                self.report.failed += 1;
                match error {
                    PolicyError::TooManyCalls(_) => self.report.out_of_calls += 1,
                    PolicyError::KeyNotAllowed(_) => self.report.not_allowed += 1,
                    _ => {}
                }
                Ok(())
            }
        }
    }

    fn spawn(&mut self, at: usize, request: Request) -> Pending {
        if self.broker_flushes != self.epochs.flushes {
            self.broker_flushes = self.epochs.flushes;
            self.broker.flush();
        }
        let by_broker = self.sessions[at].has_broker;
        let answer = Rc::new(RefCell::new(None));
        let (kms, broker) = (self.kms.clone(), Rc::clone(&self.broker));
        let (slot, asked) = (Rc::clone(&answer), request.clone());
        let task = self.tasks.spawn_local(async move {
            let reply = if by_broker { broker.answer(at as i32, asked).await } else { kms.answer(asked).await };
            slot.replace(Some(reply));
        });
        let calls = self.kms.0.borrow().calls;
        self.run_tasks();
        if request.terms().is_some_and(|terms| terms.calls == Calls::None) && self.kms.0.borrow().calls != calls {
            self.broken.get_or_insert("a statement without calls left has caused one".into());
        }
        let told = Granted { given: now(), asked: now(), epochs: self.epochs, by_broker };
        Pending { answer, task, request, told, statement: self.sessions[at].view.statement }
    }

    /// The oracle hears what the session is told. Returns what the policy hears.
    fn hear(
        &mut self,
        at: usize,
        pending: &Pending,
        reply: Result<Reply, KmsError>,
    ) -> Result<Result<Reply, KmsError>, String> {
        let session = &mut self.sessions[at];
        let told = pending.told;
        let calls = reply.as_ref().map_or_else(|error| error.calls, Reply::calls);
        self.report.calls_told += u64::from(calls);
        if pending.statement == session.view.statement {
            session.calls += u64::from(calls);
            if let Some(max) = session.view.max_calls
                && session.calls > max
            {
                return Err(format!("a statement that may make {max} calls has made {}", session.calls));
            }
        }
        match &reply {
            Ok(reply) => {
                let (wrapped_dek, consent) = match (reply, &pending.request) {
                    (Reply::Sealing(grant), _) => (&grant.wrapped.wrapped_dek, grant.consent),
                    (Reply::Opening(grant), Request::OpeningKey { wrapped, .. }) => {
                        (&wrapped.wrapped_dek, grant.consent)
                    }
                    _ => return Err("an answer is to another request".into()),
                };
                if consent.is_stale {
                    session.outage();
                }
                if let Some(number) = number_of(wrapped_dek) {
                    let given = consent.given_at(told.asked);
                    if self.kms.0.borrow().consents.get(&number).is_none_or(|truth| given > *truth) {
                        return Err(format!("data key {number}: a consent is said to be younger than it is"));
                    }
                    session.oracle.told(number, Granted { given, ..told });
                }
            }
            Err(error) => {
                if error.kind.is_outage() {
                    session.outage();
                }
                session.oracle.refused(error, pending.request.context(), told.asked, told.by_broker);
            }
        }
        Ok(match reply {
            Err(error) if self.mistake == Some(Mistake::ServeAfterRefusal) && error.is_refusal_of_key() => {
                session.outage();
                Err(KmsError { kind: KmsErrorKind::TimedOut, ..error })
            }
            reply => reply,
        })
    }

    fn tell(&mut self, at: usize, waiting: Waiting, reply: Result<Reply, KmsError>) -> Result<(), String> {
        let Waiting { kind, begun, ask, pending } = waiting;
        let reply = self.hear(at, &pending, reply)?;
        let session = &mut self.sessions[at];
        let step = session.policy.answered(ask, reply, &session.view);
        self.proceed(at, kind, begun, step, true)
    }

    fn settle_refreshes(&mut self, at: usize) -> Result<(), String> {
        if !self.sessions[at].policy.has_refreshes() {
            return Ok(());
        }
        let mut refreshes = self.sessions[at].policy.take_refreshes();
        let answered = refreshes.take_answered(|pending: &mut Pending| {
            let reply = pending.answer.borrow_mut().take()?;
            let task = self.tasks.spawn_local(async {});
            let (request, told, statement) = (pending.request.clone(), pending.told, pending.statement);
            Some((Pending { answer: Rc::default(), task, request, told, statement }, reply))
        });
        self.sessions[at].policy.put_back(refreshes);
        for (refresh, (pending, reply)) in answered {
            let reply = self.hear(at, &pending, reply)?;
            let session = &mut self.sessions[at];
            session.policy.refreshed(refresh, Some(reply), &session.view);
        }
        self.do_notes(at);
        Ok(())
    }

    fn do_notes(&mut self, at: usize) {
        if !self.sessions[at].policy.has_notes() {
            return;
        }
        for note in self.sessions[at].policy.take_notes() {
            if let Note::Refresh(refresh) = note {
                self.report.refreshes += 1;
                if self.random.u8(0..8) == 0 {
                    let session = &mut self.sessions[at];
                    session.policy.refresh_not_started(&refresh, &session.view);
                } else {
                    let pending = self.spawn(at, refresh.request().clone());
                    self.sessions[at].policy.refresh_started(refresh, pending);
                }
            }
        }
    }

    /// The session uses a data key for a value: checks that it may, and does it.
    fn finish(
        &mut self,
        at: usize,
        kind: Kind,
        begun: Begun,
        cached: &CachedKey,
        was_asked: bool,
    ) -> Result<(), String> {
        let data_key = cached.data_key();
        let number =
            number_of(&data_key.wrapped().wrapped_dek).ok_or("a value is sealed without a wrapped data key")?;
        let Session { oracle, view, last_outage, random, .. } = &mut self.sessions[at];
        let is_stale = oracle.check(&Use {
            number,
            key_id: data_key.key_id(),
            context: data_key.context(),
            seals: matches!(kind, Kind::Seal { .. }),
            was_asked,
            now: now(),
            epochs: self.epochs,
            is_blind: view.is_blind,
            ttl: view.ttl,
            stale_for: view.stale_for,
            begun,
        })?;
        self.report.stale += u64::from(is_stale);
        let key = KEYS.iter().position(|key| *key == data_key.key_id()).ok_or("a data key is under another key")?;
        if !view.allows(key) {
            return Err(format!("a data key under {} serves, which is not in the allowed list", KEYS[key]));
        }
        match kind {
            Kind::Seal { key: named, context } => {
                if named != key || *data_key.context() != self.contexts[context] {
                    return Err("a value is sealed under another key or encryption context".into());
                }
                let in_outage = last_outage.is_some_and(|outage| outage + OUTAGE_MEMORY >= now());
                if !in_outage {
                    let uses = self.uses.entry(number).or_default();
                    *uses += 1;
                    if self.max_uses.is_some_and(|max| *uses > max) {
                        return Err(format!("data key {number} seals {uses} values"));
                    }
                    let made = self.kms.0.borrow().made.get(&number).copied();
                    let is_old = made.is_none_or(|made| now().saturating_duration_since(made) >= view.max_age);
                    if is_old && !was_asked {
                        return Err(format!("data key {number} seals past its age"));
                    }
                }
                let mut nonce = [0; 24];
                random.fill(&mut nonce);
                let mut bytes = vec![0; data_key.value_bytes(PLAINTEXT.len())];
                data_key.seal(ValueType::Text, &nonce, None, PLAINTEXT, &mut bytes);
                let value = Value { bytes, is_forged: false };
                if self.values.len() < VALUES {
                    self.values.push(value);
                } else {
                    let place = self.random.usize(0..VALUES);
                    self.values[place] = value;
                }
                self.report.sealed += 1;
            }
            Kind::Open(value) => {
                open(data_key, &value)?;
                self.report.opened += 1;
            }
        }
        Ok(())
    }

    /// All is well again: every value opens, in a session with the broker and in one without.
    fn open_all(&mut self) -> Result<(), String> {
        self.kms.0.borrow_mut().moods = [None; KEYS.len()];
        while self.kms.end_call(|_| 0) {
            self.run_tasks();
        }
        self.pass(Duration::from_secs(100_000));
        for has_broker in [true, false] {
            let mut session = self.new_session();
            session.has_broker = has_broker;
            self.sessions[0] = session;
            for value in self.values.clone() {
                let opened = self.report.opened;
                self.begin(0, Kind::Open(value))?;
                while let Some(waiting) = self.sessions[0].waiting.take() {
                    while self.kms.end_call(|_| 0) {
                        self.run_tasks();
                    }
                    let reply = waiting.pending.answer.borrow_mut().take();
                    self.tell(0, waiting, reply.ok_or("a request is not answered")?)?;
                }
                if self.report.opened == opened {
                    return Err("a value does not open again when all is well".into());
                }
            }
        }
        Ok(())
    }
}

impl Session {
    fn outage(&mut self) {
        self.oracle.outage(now());
        self.last_outage = Some(now());
    }
}

fn open(data_key: &DataKey, value: &Value) -> Result<(), String> {
    if value.is_forged {
        return Err("a forged value has a data key".into());
    }
    let envelope = Envelope::parse(&value.bytes).map_err(|error| error.to_string())?;
    let mut plaintext = vec![0; envelope.ciphertext.len()];
    let bytes = data_key.open(&envelope, None, &mut plaintext).map_err(|error| error.to_string())?;
    if plaintext[..bytes] == *PLAINTEXT { Ok(()) } else { Err("a value opens to something else".into()) }
}
