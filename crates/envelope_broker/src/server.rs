//! Who may connect to the broker, and how a command is served.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use envelope_core::request::{KmsError, Reply, Request};
use envelope_kms::{Event, Lasting, Providers, Resolution, Settings};
use futures_util::future::join_all;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::unix::ReadHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::yield_now;
use tokio::time::{interval, interval_at, timeout, timeout_at};

use crate::broker::Broker;
use crate::busy_poll::{BusyPoll, Wait};
use crate::framing::CommandReader;
use crate::protocol::{self, ALIVE, ALIVE_INTERVAL, Command, Malformed, Response, Status};

/// Who connects sends its command at once.
const CALL_TIME: Duration = Duration::from_secs(1);
/// Who asks reads the answer at once, too.
const RESPONSE_TIME: Duration = Duration::from_secs(2);
/// How long a command waits for settings that the session knows already: both have been told to read them.
const RELOAD_TIME: Duration = Duration::from_millis(200);
/// Time between two rounds of housekeeping.
const ROUND: Duration = Duration::from_millis(500);
/// Time between two reports of data keys that were needed again.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);
/// How long a connection that carries nothing is kept for the next request.
const IDLE_TIME: Duration = Duration::from_secs(1);
/// Read at a time.
const READ_BYTES: usize = 8 * 1024;
/// The only connection, if it is polled for, is looked at so many times before the runtime looks for anything else.
const LOOKS: u32 = 8;
/// Accepting fails when descriptors run out: then it is tried again after so long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What an administrator sets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// The key providers.
    pub kms: Settings,
    /// Plaintext of data keys is kept for so long since the provider handed it out.
    pub useful_for: Duration,
    /// Data keys take so many bytes of memory.
    pub memory: usize,
    /// Current data keys are remembered for so long.
    pub dek_max_age: Duration,
    /// Without a request for so long, the broker ends.
    pub idle_timeout: Duration,
}

/// What sessions tell the broker without a command: counts that only go up.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Signals {
    /// To drop all data keys.
    pub flushes: u64,
    /// To make all next data keys anew.
    pub retirements: u64,
    /// To make new clients for the key providers.
    pub reconnects: u64,
}

/// What only the process knows.
pub struct Host {
    /// The user that may connect.
    pub uid: u32,
    /// How many connections are served at the same time; the others wait.
    pub max_connections: usize,
    /// What sessions tell it without a command, since it may hang when they do.
    pub signals: Box<dyn Fn() -> Signals>,
    /// What the providers share, with those that follow them and with the host.
    pub lasting: Lasting,
    /// Told twice a second what the broker does.
    pub publish: Box<dyn Fn(Status)>,
}

struct Server {
    broker: Rc<Broker<Providers>>,
    host: Host,
    config: watch::Receiver<Config>,
    /// What the providers were made with, and its fingerprint.
    settings: RefCell<Settings>,
    fingerprint: Cell<u64>,
    /// Settings of sessions that the broker has waited for in vain.
    foreign_settings: Cell<Option<u64>>,
    seen_signals: Cell<Signals>,
    started: SystemTime,
    last_request: Cell<Instant>,
    requests: Cell<u64>,
    from_memory: Cell<u64>,
    /// When it was last said how many evicted data keys were needed again, and how many they were.
    reported: Cell<(Option<Instant>, u64)>,
    connections: Cell<u64>,
    /// With those that carry nothing now.
    conversations: Cell<u64>,
    stop: Notify,
}

/// Serves until it is told to stop, was idle for long, or nobody can change `config` any more. To be run in a `LocalSet`.
///
/// # Errors
/// If the listening socket cannot be used.
pub async fn serve(
    listener: std::os::unix::net::UnixListener,
    config: watch::Receiver<Config>,
    host: Host,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let (settings, memory) = (config.borrow().kms.clone(), config.borrow().memory);
    let providers = Providers::new(settings.clone(), &host.lasting);
    let slots = Arc::new(Semaphore::new(host.max_connections));
    let server = Rc::new(Server {
        broker: Broker::new(providers, host.lasting.statistics.clone(), memory),
        seen_signals: Cell::new((host.signals)()),
        host,
        config,
        fingerprint: Cell::new(protocol::fingerprint(&settings)),
        settings: RefCell::new(settings),
        foreign_settings: Cell::new(None),
        started: SystemTime::now(),
        last_request: Cell::new(Instant::now()),
        requests: Cell::new(0),
        from_memory: Cell::new(0),
        reported: Cell::default(),
        connections: Cell::new(0),
        conversations: Cell::new(0),
        stop: Notify::new(),
    });
    let accept = async {
        loop {
            let slot = Arc::clone(&slots).acquire_owned().await;
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (server, slots) = (Rc::clone(&server), Arc::clone(&slots));
                    tokio::task::spawn_local(async move {
                        let _slot = slot;
                        // While few are left, nobody keeps one.
                        let may_stay = || slots.available_permits() > server.host.max_connections / 2;
                        // A session that has gone away needs no response, and one that talks nonsense gets none.
                        let _ = server.converse(stream, may_stay).await;
                    });
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    };
    tokio::select! {
        () = accept => {}
        () = server.keep_house() => {}
        () = server.stop.notified() => {}
    }
    Ok(())
}

/// One of the connections that are counted now.
struct Counted<'a>(&'a Cell<u64>);

impl<'a> Counted<'a> {
    fn one_more(connections: &'a Cell<u64>) -> Self {
        connections.set(connections.get() + 1);
        Self(connections)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Server {
    /// Follows the settings, wipes what is of no more use, and ends when it is time.
    async fn keep_house(&self) {
        let mut config = self.config.clone();
        let mut rounds = interval(ROUND);
        loop {
            tokio::select! {
                changed = config.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let memory = config.borrow_and_update().memory;
                    self.broker.resize(memory);
                    self.follow_settings();
                }
                _ = rounds.tick() => {
                    self.heed_signals();
                    let Config { useful_for, dek_max_age, idle_timeout, .. } = *config.borrow();
                    self.broker.prune(useful_for, dek_max_age);
                    self.host.lasting.aliases.forget_older_than(dek_max_age);
                    self.report_evictions();
                    (self.host.publish)(self.status());
                    if self.last_request.get().elapsed() >= idle_timeout && self.connections.get() == 0 {
                        return;
                    }
                }
            }
        }
    }

    /// Serves one connection.
    async fn converse(&self, mut stream: UnixStream, may_stay: impl Fn() -> bool) -> io::Result<()> {
        let session = stream.peer_cred()?;
        if session.uid() != self.host.uid {
            return Ok(());
        }
        let _conversation = Counted::one_more(&self.conversations);
        stream.write_all(&[ALIVE]).await?;
        // A session that goes through many data keys asks for the next one soon.
        let busy_poll = BusyPoll::new();
        let mut command = self.read_command(&mut stream, busy_poll.begin(), CALL_TIME).await?;
        loop {
            let may_go_on = matches!(command, Command::Ask { .. } | Command::AskMany { .. });
            self.serve_one(&mut stream, session.pid().unwrap_or_default(), command).await?;
            if !may_go_on || !may_stay() {
                return Ok(());
            }
            command = self.read_command(&mut stream, busy_poll.begin(), IDLE_TIME).await?;
        }
    }

    /// A command that comes in time.
    async fn read_command(&self, stream: &mut UnixStream, wait: Wait<'_>, time: Duration) -> io::Result<Command> {
        let deadline = tokio::time::Instant::now() + time;
        let mut reader = CommandReader::new();
        let mut buffer = [0; READ_BYTES];
        loop {
            // More than a short command has: then it is read at once, and nobody looks for more.
            let bytes = match self.receive_soon(stream, &mut buffer, &wait).await {
                Some(received) => received?,
                None => timeout_at(deadline, stream.read(&mut buffer)).await??,
            };
            if bytes == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(command) = reader.take(&buffer[..bytes]).map_err(malformed)? {
                wait.end();
                return Ok(command);
            }
        }
    }

    /// What comes as long as it is polled for; the other connections are served meanwhile, if there are any.
    async fn receive_soon(&self, stream: &UnixStream, buffer: &mut [u8], wait: &Wait<'_>) -> Option<io::Result<usize>> {
        let mut looks = 0_u32;
        while wait.polls_again() {
            match recv(stream, &mut *buffer, RecvFlags::DONTWAIT) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                received => return Some(received.map(|(bytes, _)| bytes).map_err(io::Error::from)),
            }
            looks += 1;
            if self.conversations.get() > 1 || looks.is_multiple_of(LOOKS) {
                yield_now().await;
            }
        }
        None
    }

    async fn serve_one(&self, stream: &mut UnixStream, session: i32, command: Command) -> io::Result<()> {
        let _connection = Counted::one_more(&self.connections);
        let is_stop = command == Command::Stop;
        let (reader, mut writer) = stream.split();
        let response = self.answer(session, command);
        tokio::pin!(response);
        // Not by awaiting a tick that is due: the runtime's clock has ticks of a millisecond, and that
        // would take one.
        let mut signs_of_life = interval_at(tokio::time::Instant::now() + ALIVE_INTERVAL, ALIVE_INTERVAL);
        let response = loop {
            tokio::select! {
                biased;
                response = &mut response => break response,
                _ = signs_of_life.tick() => timeout(RESPONSE_TIME, writer.write_all(&[ALIVE])).await??,
                // It was cancelled, and dropping the request cancels that, too.
                gone = until_gone(&reader) => return gone.and(Err(io::ErrorKind::UnexpectedEof.into())),
            }
        };
        timeout(RESPONSE_TIME, writer.write_all(&protocol::encode_response(response))).await??;
        if is_stop {
            self.stop.notify_one();
        }
        Ok(())
    }

    async fn answer(&self, session: i32, command: Command) -> Response {
        match command {
            Command::Ask { request, settings, resolution } => {
                self.begin_requests(1, settings).await;
                self.learn(&request, settings, resolution);
                Response::Reply(self.ask(session, request).await)
            }
            Command::AskMany { requests, settings } => {
                self.begin_requests(requests.len() as u64, settings).await;
                Response::Replies(join_all(requests.into_iter().map(|request| self.ask(session, request))).await)
            }
            Command::Retire(key_id) => {
                self.broker.retire(&key_id);
                Response::Done
            }
            Command::Status => Response::Status(self.status()),
            Command::Statistics => Response::Statistics(self.host.lasting.statistics.snapshot()),
            Command::ResetStatistics => {
                self.host.lasting.statistics.reset();
                Response::Done
            }
            // Ends when the response is out.
            Command::Stop => Response::Done,
        }
    }

    /// Counts requests, and does what sessions and settings say before they are answered.
    async fn begin_requests(&self, requests: u64, settings: u64) {
        self.last_request.set(Instant::now());
        self.requests.set(self.requests.get() + requests);
        self.follow_settings();
        if self.fingerprint.get() != settings && self.foreign_settings.get() != Some(settings) {
            self.await_settings(settings).await;
            self.follow_settings();
        }
        self.heed_signals();
    }

    /// Takes from a session what its alias stood for, if it reaches KMS by the same settings.
    fn learn(&self, request: &Request, settings: u64, resolution: Option<Resolution>) {
        if let Some((alias, Resolution { key_arn, age })) = request.alias().zip(resolution)
            && settings == self.fingerprint.get()
            && let Some(resolved) = Instant::now().checked_sub(age)
        {
            self.host.lasting.aliases.learn(&self.settings.borrow().aws, alias, &key_arn, resolved);
        }
    }

    async fn ask(&self, session: i32, request: Request) -> Result<Reply, KmsError> {
        let reply = self.broker.answer(session, request).await?;
        self.from_memory.set(self.from_memory.get() + u64::from(!reply.took_call()));
        Ok(reply)
    }

    /// A session that has seen a change of the settings before the broker waits until the broker has, too.
    async fn await_settings(&self, known: u64) {
        let mut config = self.config.clone();
        let is_known = |config: &Config| protocol::fingerprint(&config.kms) == known;
        let in_time = timeout(RELOAD_TIME, config.wait_for(is_known)).await.is_ok();
        // One that has not seen it yet, or whose settings are its own, is not waited for again.
        self.foreign_settings.set((!in_time).then_some(known));
    }

    fn follow_settings(&self) {
        if *self.settings.borrow() == self.config.borrow().kms {
            return;
        }
        let settings = self.config.borrow().kms.clone();
        self.fingerprint.set(protocol::fingerprint(&settings));
        let before = self.settings.replace(settings);
        let same_keys = is_same_service(&self.settings.borrow(), &before);
        self.broker.set_providers(self.new_providers());
        // The same key id may name another key there.
        if !same_keys {
            self.broker.retire_all();
        }
    }

    fn new_providers(&self) -> Providers {
        Providers::new(self.settings.borrow().clone(), &self.host.lasting)
    }

    fn heed_signals(&self) {
        let signals = (self.host.signals)();
        let seen = self.seen_signals.replace(signals);
        if seen.flushes != signals.flushes {
            self.broker.flush();
        }
        if seen.retirements != signals.retirements {
            self.broker.retire_all();
        }
        if seen.reconnects != signals.reconnects {
            self.broker.set_providers(self.new_providers());
        }
    }

    /// Says once in a while that data keys are asked of their providers again for want of memory.
    fn report_evictions(&self) {
        let (last, before) = self.reported.get();
        let evicted_needed = self.broker.cache_counts().iter().map(|counts| counts.evicted_needed).sum();
        if evicted_needed > before && last.is_none_or(|last| last.elapsed() >= REPORT_INTERVAL) {
            self.reported.set((Some(Instant::now()), evicted_needed));
            self.host.lasting.events.add(Event::BrokerMemoryShort { needed_again: evicted_needed - before });
        }
    }

    fn status(&self) -> Status {
        let (data_keys, current_data_keys) = self.broker.sizes();
        let [opening, sealing] = self.broker.cache_counts();
        Status {
            pid: std::process::id(),
            started: self.started,
            requests: self.requests.get(),
            answered_from_memory: self.from_memory.get(),
            connections: self.connections.get(),
            data_keys: data_keys as u64,
            current_data_keys: current_data_keys as u64,
            unwrapped_ahead: self.broker.unwrapped_ahead(),
            open_breakers: self.broker.providers().open_breakers(),
            memory: own_memory().unwrap_or_default(),
            waiting_calls: self.host.lasting.limiter.waiting(),
            data_key_bytes: self.broker.used_bytes() as u64,
            cache_hits: opening.hits + sealing.hits,
            cache_misses: opening.misses + sealing.misses,
            evictions: opening.evictions + sealing.evictions,
            evicted_needed: opening.evicted_needed + sealing.evicted_needed,
        }
    }
}

/// Anonymous pages of this process in memory (Linux, proc(5): `RssAnon`), in bytes.
fn own_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Whether a key id names the same key under both settings; they may differ in how patient they are.
fn is_same_service(one: &Settings, other: &Settings) -> bool {
    let service = |Settings { aws, local_keyring }: &Settings| {
        (aws.region.clone(), aws.endpoint_url.clone(), aws.profile.clone(), local_keyring.clone())
    };
    service(one) == service(other)
}

/// Waits until the session has gone away, or says more before it is answered.
async fn until_gone(reader: &ReadHalf<'_>) -> io::Result<()> {
    loop {
        reader.ready(Interest::READABLE).await?;
        match reader.try_read(&mut [0]) {
            // It was ready for what has been read already.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result.map(drop),
        }
    }
}

fn malformed(error: Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
