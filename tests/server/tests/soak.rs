//! Twenty sessions write and read encrypted rows while KMS shows every fault: nothing is lost, nothing hangs, nothing grows.
//!
//! Each session by itself, and all through the broker, at the same time. Half a minute; SOAK_SECONDS=180 makes it a longer one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{env, panic};

use server_tests::soak::{Habits, MARKER, Mishap, Outcome, Seat, Soak, TABLE};
use server_tests::worker;
use testkit::random::Random;
use testkit::usage::Usage;
use testkit::{Cluster, ClusterBuilder, Fault, FaultProxy, Fixture, Nonsense, Rule, Session, is_reached_within};

const SESSIONS: usize = 20;
/// Of the faults in the short form, unless one round of all faults takes longer.
const SHORT: Duration = Duration::from_secs(15);
/// For all sessions to work again and to have read all that they wrote, when the faults are over.
const END: Duration = Duration::from_secs(240);
/// Two KMS calls of 500 ms each for a value, ten values in a scan; far below the time for which a hung one would last.
const LONGEST_STATEMENT: Duration = Duration::from_secs(12);
/// What a backend may grow by after the first third.
const MEMORY_SLACK_KB: usize = 4 * 1024;
/// What the broker may have of its own.
const BROKER_MEMORY_KB: usize = 32 * 1024;
/// Connections to KMS that a backend may keep open for the next calls: 16 background refreshes and the call of a statement.
/// Thousands of calls that leaked one now and then would leave more.
const KMS_CONNECTIONS: usize = 17;
/// Sockets of a backend without any.
const OTHER_SOCKETS: usize = 4;
/// Different lines that a backend may write in a minute: 2 keys, their region, and for each the ways to fail.
const LINES_PER_BACKEND: usize = 24;

/// The longest that a KMS call may take.
const KMS_TIMEOUT: Duration = Duration::from_millis(500);

/// A fault that no session has met is shown for so long at most.
const LONGEST_SPELL: Duration = Duration::from_secs(10);

/// What errors a fault explains that is over when the statement that meets it is over. KMS that is unreachable or throttles
/// explains errors for longer: until the circuit breaker of the session closes.
const REFUSALS: [&str; 4] = ["42501", "55000", "42704", "22000"];

/// For so long a session does not ask again about a wrapped key that KMS did not take, as in the core's policy.
const REMEMBERED_FOR: Duration = Duration::from_secs(10);

/// What the proxy does for a while.
enum Weather {
    Refuse,
    Show(Rule),
}

/// A fault that was in force, and the SQLSTATE that it explains.
struct Spell {
    sqlstate: &'static str,
    began: Instant,
    ended: Instant,
}

/// What came of it all.
struct Run<'a> {
    soak: &'a Soak,
    faults_took: Duration,
    spells: Vec<Spell>,
    cancels: usize,
    outcomes: Vec<Outcome>,
    before: BTreeMap<i32, Usage>,
    after: BTreeMap<i32, Usage>,
    /// By backend and text.
    lines: HashMap<(String, String), usize>,
}

/// All faults, each with the SQLSTATE of its errors. A data key that is not the one in the wrapped data key is not among the
/// answers to GenerateDataKey: what KMS lies about then cannot be found out, and no value could be opened again.
fn faults() -> Vec<(&'static str, Weather)> {
    let show = |sqlstate, fault| (sqlstate, Weather::Show(Rule::every(fault)));
    let on_decrypt = |sqlstate, fault| (sqlstate, Weather::Show(Rule::every(fault).only("Decrypt")));
    vec![
        ("58000", Weather::Refuse),
        show("58000", Fault::Delay(Duration::from_millis(150))),
        show("58000", Fault::Reset),
        show("58000", Fault::ResetInTheMiddle),
        show("58000", Fault::HalfResponse),
        show("58000", Fault::Hang),
        show("58000", Fault::kms_error(500, "KMSInternalException")),
        show("58000", Fault::kms_error(503, "ServiceUnavailableException")),
        show("58000", Fault::Nonsense(Nonsense::Garbage)),
        show("58000", Fault::Nonsense(Nonsense::WrongKeyId)),
        show("58000", Fault::Nonsense(Nonsense::ShortPlaintext)),
        show("58000", Fault::Nonsense(Nonsense::NoPlaintext)),
        show("53400", Fault::kms_error(400, "ThrottlingException")),
        show("53400", Fault::kms_error(429, "TooManyRequestsException")),
        show("42501", Fault::kms_error(400, "AccessDeniedException")),
        show("55000", Fault::kms_error(400, "DisabledException")),
        show("55000", Fault::kms_error(400, "KMSInvalidStateException")),
        show("42704", Fault::kms_error(400, "NotFoundException")),
        on_decrypt("22000", Fault::kms_error(400, "InvalidCiphertextException")),
        on_decrypt("22000", Fault::Nonsense(Nonsense::OtherPlaintext)),
    ]
}

#[test]
fn nothing_is_lost_hangs_or_grows_under_every_fault() {
    let_it_soak("without the broker", Fixture::kms_with);
}

#[test]
fn nothing_is_lost_hangs_or_grows_with_the_broker() {
    let_it_soak("with the broker", Fixture::with_broker_and);
}

fn let_it_soak(title: &str, fixture: fn(ClusterBuilder) -> Fixture) {
    let time = match env::var("SOAK_SECONDS") {
        Ok(seconds) => Duration::from_secs(seconds.parse().expect("SOAK_SECONDS is a number")),
        Err(_) => SHORT,
    };
    let soak = Arc::new(start(fixture));
    let (cluster, postmaster) = (&soak.fixture.cluster, soak.fixture.cluster.pid());
    let started = Instant::now();
    let sessions: Vec<_> = (0..SESSIONS)
        .map(|number| {
            let soak = Arc::clone(&soak);
            thread::spawn(move || worker::run(&soak, number))
        })
        .collect();
    let cancels = cancel_now_and_then(&soak);
    let (spells, before) = let_faults_come(&soak, &sessions, time);
    let faults_took = started.elapsed();
    soak.over.store(true, Relaxed);
    let outcomes = join_all(&soak, sessions);
    let cancels = cancels.join().expect("the witness is well");
    // The sessions are idle now, but their connections are open.
    thread::sleep(Duration::from_secs(1));
    let (after, lines) = (usage_of_sessions(&soak), our_lines(cluster));
    let run = Run { soak: &soak, faults_took, spells, cancels, outcomes, before, after, lines };
    run.report(title);

    assert_eq!(cluster.pid(), postmaster);
    let rows: i64 = soak.fixture.connect().one("SELECT count(*) FROM soak", &[]);
    let remembered: usize = run.outcomes.iter().map(|outcome| outcome.rows).sum();
    assert_eq!(rows, remembered as i64, "rows that nobody remembers, or that are gone");
    run.check_explained();
    run.check_usage();
    run.check_broker();
    run.check_log(started.elapsed());
    let longest = run.outcomes.iter().map(|outcome| outcome.longest).max().unwrap_or_default();
    assert!(longest < LONGEST_STATEMENT, "a statement took {longest:?}");
}

fn start(fixture: fn(ClusterBuilder) -> Fixture) -> Soak {
    let builder = Cluster::builder()
        .setting("envelope_pg.cache_ttl", "1s")
        .setting("envelope_pg.cache_entries", "100")
        .setting("envelope_pg.dek_max_age", "5s")
        .setting("envelope_pg.stale_if_unreachable", "3s")
        .setting("envelope_pg.kms_timeout", &format!("{}ms", KMS_TIMEOUT.as_millis()))
        .setting("envelope_pg.kms_max_attempts", "2");
    let fixture = fixture(builder);
    fixture.cluster.sql(TABLE);
    let keys = vec![fixture.key_id.clone(), fixture.new_key().arn];
    let seats = (0..SESSIONS).map(|_| Seat::default()).collect();
    Soak { fixture, keys, seats, gate: RwLock::default(), over: AtomicBool::new(false), seen: Mutex::default() }
}

/// Cancels whatever some of the sessions do, until the faults are over. Returns how often.
fn cancel_now_and_then(soak: &Arc<Soak>) -> JoinHandle<usize> {
    let soak = Arc::clone(soak);
    thread::spawn(move || {
        let mut witness = soak.fixture.connect();
        let (mut random, mut cancels) = (Random::new(7), 0);
        while !soak.over.load(Relaxed) {
            for seat in soak.seats.iter().enumerate().filter(|(number, _)| Habits::of(*number).cancelled) {
                let pid = seat.1.pid.load(Relaxed);
                if pid != 0 && random.below(3) == 0 {
                    assert!(witness.one::<bool>("SELECT pg_cancel_backend($1)", &[&pid]), "backend {pid} is gone");
                    cancels += 1;
                }
            }
            thread::sleep(Duration::from_millis(random.below(100)));
        }
        cancels
    })
}

/// Shows all faults in random order, again and again, with good times between them, and leaves a good one. Also returns what
/// the sessions used after the first third.
fn let_faults_come(
    soak: &Soak,
    sessions: &[JoinHandle<Outcome>],
    time: Duration,
) -> (Vec<Spell>, BTreeMap<i32, Usage>) {
    let (proxy, mut random, started) = (&soak.fixture.proxy, Random::new(3), Instant::now());
    let (mut spells, mut before) = (Vec::new(), None);
    while before.is_none() || started.elapsed() < time {
        let mut round = faults();
        while !round.is_empty() {
            thread::sleep(Duration::from_millis(200 + random.below(300)));
            if before.is_none() && started.elapsed() >= time / 3 {
                before = Some(while_idle(soak));
            }
            if round.len() == faults().len() / 2 {
                // A broker is ended in the middle of it all; another one takes over.
                soak.fixture.cluster.sql("SELECT env_broker_stop()");
            }
            let (sqlstate, weather) = round.swap_remove(random.below(round.len() as u64) as usize);
            let began = Instant::now();
            show(proxy, weather);
            thread::sleep(Duration::from_millis(300 + random.below(700)));
            // On a busy machine it may take longer until a session asks KMS.
            let is_seen = || soak.seen.lock().unwrap_or_else(PoisonError::into_inner).contains(sqlstate);
            is_reached_within(LONGEST_SPELL.saturating_sub(began.elapsed()), is_seen);
            proxy.clear();
            spells.push(Spell { sqlstate, began, ended: Instant::now() });
            if sessions.iter().any(JoinHandle::is_finished) {
                // It panicked, which join() will say.
                return (spells, before.unwrap_or_default());
            }
        }
    }
    (spells, before.unwrap_or_default())
}

fn show(proxy: &FaultProxy, weather: Weather) {
    match weather {
        Weather::Refuse => proxy.refuse(),
        Weather::Show(rule) => proxy.set(rule),
    }
}

fn while_idle(soak: &Soak) -> BTreeMap<i32, Usage> {
    let _closed = soak.gate.write().unwrap_or_else(PoisonError::into_inner);
    thread::sleep(Duration::from_secs(1));
    usage_of_sessions(soak)
}

/// What the backends use, of those sessions that keep theirs: by process id, which must not change.
fn usage_of_sessions(soak: &Soak) -> BTreeMap<i32, Usage> {
    let seats = soak.seats.iter().enumerate().filter(|(number, _)| !Habits::of(*number).reconnects);
    seats.map(|(_, seat)| seat.pid.load(Relaxed)).map(|pid| (pid, Usage::of(pid))).collect()
}

/// Waits for the sessions, but not for ever.
fn join_all(soak: &Soak, sessions: Vec<JoinHandle<Outcome>>) -> Vec<Outcome> {
    is_reached_within(END, || sessions.iter().all(JoinHandle::is_finished));
    let (finished, hung): (Vec<_>, Vec<_>) = sessions.into_iter().partition(JoinHandle::is_finished);
    let outcomes: Vec<_> = finished
        .into_iter()
        .map(|session| session.join().unwrap_or_else(|reason| panic::resume_unwind(reason)))
        .collect();
    let states =
        "SELECT concat_ws(' ', pid, state, wait_event_type, wait_event, left(query, 60)) FROM pg_stat_activity";
    assert!(hung.is_empty(), "{} sessions hang: {:#?}", hung.len(), soak.fixture.connect().column::<String>(states));
    outcomes
}

/// Our own lines in the server's log: by backend, and by what they say.
fn our_lines(cluster: &Cluster) -> HashMap<(String, String), usize> {
    let mut lines = HashMap::new();
    let log = cluster.log();
    for line in log.lines().filter(|line| line.contains("KMS")) {
        let Some((prefix, text)) = line.split_once("LOG:  ").or_else(|| line.split_once("WARNING:  ")) else {
            continue;
        };
        let pid = prefix.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or("", |(pid, _)| pid);
        // How long an outage lasted differs each time.
        let text: Vec<_> = text.split(' ').map(|word| if word.parse::<u64>().is_ok() { "N" } else { word }).collect();
        *lines.entry((pid.to_owned(), text.join(" "))).or_default() += 1;
    }
    lines
}

impl Run<'_> {
    fn report(&self, title: &str) {
        let sum = |what: fn(&Outcome) -> usize| self.outcomes.iter().map(what).sum::<usize>();
        let most = |what: fn(&Outcome) -> Duration| self.outcomes.iter().map(what).max().unwrap_or_default();
        let mut by_sqlstate: BTreeMap<&str, usize> = BTreeMap::new();
        for mishap in self.mishaps() {
            *by_sqlstate.entry(&mishap.sqlstate).or_default() += 1;
        }
        let range = |usages: &BTreeMap<i32, Usage>, what: fn(&Usage) -> usize| {
            let values = || usages.values().map(what);
            format!("{} to {}", values().min().unwrap_or(0), values().max().unwrap_or(0))
        };
        let change = |what: fn(&Usage) -> usize| {
            format!("{} before, {} after", range(&self.before, what), range(&self.after, what))
        };
        let growth = self.before.iter().filter_map(|(pid, before)| Some((before, self.after.get(pid)?)));
        let growth = growth.map(|(before, after)| after.memory_kb as i64 - before.memory_kb as i64).max().unwrap_or(0);
        let kinds: BTreeSet<_> = self.lines.keys().map(|(_, text)| text).collect();
        let calls = |operation| self.soak.fixture.proxy.calls(operation);
        println!("soak {title}: {:.1} s of faults", self.faults_took.as_secs_f64());
        println!("  sessions               {} on {} connections", SESSIONS, sum(|outcome| outcome.connections));
        println!("  faults, cancels        {}, {}", self.spells.len(), self.cancels);
        println!("  statements             {}", sum(|outcome| outcome.statements));
        println!(
            "  rows written           {} ({} distinct)",
            sum(|outcome| outcome.writes),
            sum(|outcome| outcome.rows)
        );
        println!("  errors by SQLSTATE     {by_sqlstate:?}");
        println!("  KMS calls              GenerateDataKey {}, Decrypt {}", calls("GenerateDataKey"), calls("Decrypt"));
        println!("  longest statement      {:?}", most(|outcome| outcome.longest));
        println!("  all work again after   {:?}", most(|outcome| outcome.recovery));
        println!("  memory of backends, kB {}", change(|usage| usage.memory_kb));
        println!("  largest growth, kB     {growth}");
        println!("  sockets                {}", change(|usage| usage.sockets));
        println!("  other descriptors      {}", change(|usage| usage.descriptors));
        println!("  threads                {}", change(|usage| usage.threads));
        println!("  our lines in the log   {} of {} kinds", self.lines.values().sum::<usize>(), kinds.len());
    }

    /// Every error has a fault that explains it, and every class of faults has been seen.
    fn check_explained(&self) {
        for mishap in self.mishaps() {
            let sqlstate = mishap.sqlstate.as_str();
            // A statement may wait for a call that was begun in the spell, by another session or in the background.
            // A wrapped key that KMS did not take is not asked about again for some time.
            let remembered = if sqlstate == "22000" { REMEMBERED_FOR } else { Duration::ZERO };
            let explains = |spell: &Spell| {
                spell.sqlstate == sqlstate
                    && spell.began <= mishap.ended
                    && (mishap.began <= spell.ended + KMS_TIMEOUT + remembered || !REFUSALS.contains(&sqlstate))
            };
            // The machine may be too busy for a call to end in time, and cancels are no fault.
            let explained = ["58000", "57014"].contains(&sqlstate) || self.spells.iter().any(explains);
            let late = self.spells.iter().filter(|spell| spell.sqlstate == sqlstate && spell.ended < mishap.began);
            let late = late.map(|spell| mishap.began - spell.ended).min();
            assert!(explained, "{sqlstate} without a fault, {late:?} after one that explains it");
        }
        for spell in &self.spells {
            assert!(self.mishaps().any(|mishap| mishap.sqlstate == spell.sqlstate), "{} never seen", spell.sqlstate);
        }
        assert!(self.mishaps().any(|mishap| mishap.sqlstate == "57014"), "nothing was cancelled");
    }

    fn check_usage(&self) {
        let (before, after) = (&self.before, &self.after);
        assert!(before.keys().eq(after.keys()), "backends were replaced: {before:?} {after:?}");
        for (pid, (before, after)) in before.iter().map(|(pid, before)| (pid, (before, &after[pid]))) {
            let grown = |what: fn(&Usage) -> usize| what(after).saturating_sub(what(before));
            assert!(grown(|usage| usage.memory_kb) <= MEMORY_SLACK_KB, "memory of {pid}: {before:?} became {after:?}");
            assert!(after.sockets <= KMS_CONNECTIONS + OTHER_SOCKETS, "{pid}: {before:?} became {after:?}");
            assert!(grown(|usage| usage.descriptors) == 0, "{pid}: {before:?} became {after:?}");
            assert!(grown(|usage| usage.threads) == 0, "{pid}: {before:?} became {after:?}");
        }
    }

    /// It holds what all sessions ask for, within the same bounds as one of them.
    fn check_broker(&self) {
        for usage in self.soak.fixture.cluster.brokers().into_iter().map(Usage::of) {
            println!("  the broker             {usage:?}");
            assert!(usage.memory_kb <= BROKER_MEMORY_KB, "{usage:?}");
            assert!(usage.sockets <= KMS_CONNECTIONS + SESSIONS + OTHER_SOCKETS, "{usage:?}");
        }
    }

    fn check_log(&self, took: Duration) {
        let minutes = took.as_secs() as usize / 60 + 1;
        let mut of_backend: HashMap<&str, usize> = HashMap::new();
        for ((pid, text), &count) in &self.lines {
            assert!(count <= minutes, "{count} times from {pid}: {text}");
            *of_backend.entry(pid).or_default() += count;
        }
        let most = of_backend.values().copied().max().unwrap_or(0);
        assert!(most <= LINES_PER_BACKEND * minutes, "a backend wrote {most} lines");
        let log = self.soak.fixture.cluster.log();
        for never in ["terminated by signal", "PANIC:", "panicked at", "server process", MARKER] {
            let line = log.lines().find(|line| line.contains(never));
            assert!(line.is_none(), "{never:?} in the server's log");
        }
    }

    fn mishaps(&self) -> impl Iterator<Item = &Mishap> {
        self.outcomes.iter().flat_map(|outcome| &outcome.mishaps)
    }
}
