//! A broker on a socket in a directory of its own, with a key file that has the key `local:dev`.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use envelope_broker::protocol::{self, ALIVE, Command, LENGTH_BYTES, MAX_RESPONSE_BYTES, RESPONSE, Response, Status};
use envelope_broker::server::{self, Config, Host, Signals};
use envelope_core::context::EncryptionContext;
use envelope_core::keys::{KeyId, LocalKeyName, WrappedKey};
use envelope_core::request::{Calls, KmsError, Reply, Request, SealingLimits, Terms};
use envelope_kms::local::LocalKms;
use envelope_kms::statistics::StatisticsSnapshot;
use envelope_kms::{Lasting, Settings, aws};
use tokio::sync::watch;

const HOUR: Duration = Duration::from_secs(3600);

pub struct Options {
    pub foreign_user: bool,
    pub max_connections: usize,
    pub idle_timeout: Duration,
    /// Where AWS KMS is.
    pub kms: Option<SocketAddr>,
}

impl Default for Options {
    fn default() -> Self {
        Self { foreign_user: false, max_connections: 1_000, idle_timeout: HOUR, kms: None }
    }
}

pub struct Server {
    pub path: PathBuf,
    directory: tempfile::TempDir,
    config: Option<watch::Sender<Config>>,
    flushes: Arc<AtomicU64>,
    retirements: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Server {
    pub fn start(options: Options) -> Self {
        let Options { foreign_user, max_connections, idle_timeout, kms } = options;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("broker.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let aws = aws::Settings {
            region: None,
            endpoint_url: kms.map(|address| format!("http://{address}")),
            profile: None,
            timeout: Duration::from_secs(10),
            max_attempts: 1,
            max_calls_per_second: None,
            failover_regions: vec![],
        };
        let kms = Settings { aws, local_keyring: Some(make_keyring(directory.path(), "keys.json", "dev")) };
        let config = Config { kms, memory: 1 << 20, useful_for: HOUR, dek_max_age: HOUR, idle_timeout };
        let (config, watched) = watch::channel(config);
        let flushes = Arc::new(AtomicU64::new(0));
        let retirements = Arc::new(AtomicU64::new(0));
        let counted = (Arc::clone(&flushes), Arc::clone(&retirements));
        // The directory is this user's.
        let uid = directory.path().metadata().unwrap().uid() + u32::from(foreign_user);
        let thread = thread::spawn(move || {
            let signals = Box::new(move || Signals {
                flushes: counted.0.load(Ordering::SeqCst),
                retirements: counted.1.load(Ordering::SeqCst),
                reconnects: 0,
            });
            let host = Host { uid, max_connections, signals, lasting: Lasting::default(), publish: Box::new(drop) };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            tokio::task::LocalSet::new().block_on(&runtime, server::serve(listener, watched, host)).unwrap();
        });
        Self { path, directory, config: Some(config), flushes, retirements, thread }
    }

    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    pub fn flush(&self) {
        self.flushes.fetch_add(1, Ordering::SeqCst);
    }

    pub fn retire(&self) {
        self.retirements.fetch_add(1, Ordering::SeqCst);
    }

    pub fn config(&self) -> Config {
        self.sender().borrow().clone()
    }

    pub fn configure(&self, change: impl FnOnce(&mut Config)) {
        self.sender().send_modify(change);
    }

    pub fn drop_config(&mut self) {
        self.config = None;
    }

    fn sender(&self) -> &watch::Sender<Config> {
        self.config.as_ref().expect("it was not dropped")
    }

    /// A key file with a key.
    pub fn make_keyring(&self, file: &str, key: &str) -> PathBuf {
        make_keyring(self.directory.path(), file, key)
    }

    /// The call of a session that knows the same settings.
    pub fn ask(&self, request: Request) -> Command {
        Command::Ask { request, settings: protocol::fingerprint(&self.config().kms), resolution: None }
    }

    pub fn call(&self, command: &Command) -> Response {
        let mut stream = connect(&self.path);
        send(&mut stream, command);
        answer_of(&mut stream)
    }

    pub fn reply(&self, request: Request) -> Result<Reply, KmsError> {
        match self.call(&self.ask(request)) {
            Response::Reply(reply) => reply,
            _ => panic!("the answer is to this call"),
        }
    }

    /// The wrapped form of the data key that seals values under a local key.
    pub fn seal(&self, key: &str) -> WrappedKey {
        match self.reply(seal_request(key)) {
            Ok(Reply::Sealing(grant)) => grant.wrapped,
            _ => panic!("a data key"),
        }
    }

    pub fn status(&self) -> Status {
        match self.call(&Command::Status) {
            Response::Status(status) => status,
            _ => panic!("the answer is to this call"),
        }
    }

    pub fn statistics(&self) -> StatisticsSnapshot {
        match self.call(&Command::Statistics) {
            Response::Statistics(statistics) => statistics,
            _ => panic!("the answer is to this call"),
        }
    }
}

fn make_keyring(directory: &Path, file: &str, key: &str) -> PathBuf {
    let path = directory.join(file);
    let kms = LocalKms::new(Some(path.clone()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(kms.create_key(&LocalKeyName::parse(key).unwrap())).unwrap();
    path
}

pub fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

pub fn send(stream: &mut UnixStream, command: &Command) {
    stream.write_all(&protocol::encode_command(command)).unwrap();
}

/// The first response of a connection.
pub fn answer_of(stream: &mut UnixStream) -> Response {
    let mut byte = [RESPONSE];
    stream.read_exact(&mut byte).unwrap();
    assert_eq!(byte, [ALIVE], "a sign of life comes first");
    next_answer_of(stream)
}

/// A response of a connection that has carried one.
pub fn next_answer_of(stream: &mut UnixStream) -> Response {
    let mut byte = [ALIVE];
    while byte == [ALIVE] {
        stream.read_exact(&mut byte).unwrap();
    }
    assert_eq!(byte, [RESPONSE]);
    let mut length = [0; LENGTH_BYTES];
    stream.read_exact(&mut length).unwrap();
    let length = u32::from_be_bytes(length) as usize;
    assert!(length <= MAX_RESPONSE_BYTES);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    protocol::decode_response(&mut body).expect("an answer")
}

pub fn seal_request(key: &str) -> Request {
    Request::SealingKey {
        key_id: KeyId::parse(&format!("local:{key}")).unwrap(),
        context: EncryptionContext::default(),
        terms: Terms { fresh_for: HOUR, stale_for: HOUR, calls: Calls::Ahead, is_ahead: false },
        limits: SealingLimits { max_age: HOUR, max_uses: None, max_bytes: None, wanted_bytes: 1 },
    }
}

pub fn open_request(wrapped: &WrappedKey) -> Request {
    Request::OpeningKey {
        wrapped: wrapped.clone(),
        context: EncryptionContext::default(),
        commitment: None,
        terms: Terms { fresh_for: HOUR, stale_for: HOUR, calls: Calls::Ahead, is_ahead: false },
    }
}

/// Runs a test in a process of its own that has AWS credentials, which come from the environment.
pub fn with_aws_credentials(name: &str, test: impl FnOnce()) {
    const ACCESS_KEY: &str = "AKIDTESTOFTHEBROKER";
    if std::env::var("AWS_ACCESS_KEY_ID").as_deref() == Ok(ACCESS_KEY) {
        return test();
    }
    let mut child = process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", name, "--nocapture"]);
    child.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", "not-a-secret");
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "there is no test of this name");
}
