//! The fault proxy between the extension and the emulator: counts calls and shows faults. It keeps and prints no body.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use serde_json::Value;

use crate::dialect;
use crate::fault::{Fault, Nonsense, Rule, Rules};
use crate::http::{self, Message};
use crate::waiting::wait_until;

/// A key ARN that no key of the emulator has.
pub const FOREIGN_KEY_ARN: &str = "arn:aws:kms:us-west-2:123456789012:key/00000000-0000-4000-8000-000000000000";

/// 16 and 32 zero bytes in base64.
const SHORT_PLAINTEXT: &str = "AAAAAAAAAAAAAAAAAAAAAA==";
const OTHER_PLAINTEXT: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// An HTTP/1.1 proxy on a free port of the loopback interface.
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    rules: Rules,
    calls: BTreeMap<Call, usize>,
    hanging: usize,
    connections: usize,
    listener: Listener,
}

/// What calls are counted by.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Call {
    operation: String,
    region: String,
    key_id: String,
}

/// Whether new connections are taken: what is asked for, and what the accepting thread has done about it.
#[derive(Default, PartialEq, Eq, Clone, Copy)]
enum Listener {
    #[default]
    Open,
    CloseAsked,
    Closed,
    OpenAsked,
    Ended,
}

impl FaultProxy {
    /// Starts a proxy in front of the endpoint at `upstream`.
    pub fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared { upstream, state: Mutex::default(), changed: Condvar::new() });
        let for_thread = Arc::clone(&shared);
        thread::spawn(move || accept(listener, address, &for_thread));
        Self { address, shared }
    }

    /// What to set `envelope_pg.kms_endpoint_url` to.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Shows a fault from the next call on, instead of the faults so far.
    pub fn set(&self, rule: impl Into<Rule>) {
        self.set_all(vec![rule.into()]);
    }

    /// As [`FaultProxy::set`] with several rules, of which the first that fits a call wins.
    pub fn set_all(&self, rules: Vec<Rule>) {
        self.shared.lock().rules.replace(rules);
    }

    /// Closes the listening socket: new connections are refused by the kernel, and open ones reset at their next call.
    pub fn refuse(&self) {
        self.shared.lock().listener = Listener::CloseAsked;
        // The accepting thread sits in accept(): wake it with a connection.
        drop(TcpStream::connect(self.address));
        self.shared.wait(|state| state.listener == Listener::Closed);
    }

    /// Passes everything again, listening if it was not.
    pub fn clear(&self) {
        let mut state = self.shared.lock();
        state.rules.replace(Vec::new());
        if state.listener == Listener::Closed {
            state.listener = Listener::OpenAsked;
            self.shared.changed.notify_all();
            drop(state);
            self.shared.wait(|state| state.listener == Listener::Open);
        }
    }

    /// How many calls of an operation came in since the last reset, whatever happened to them.
    pub fn calls(&self, operation: &str) -> usize {
        self.count(|call| call.operation == operation)
    }

    /// As [`FaultProxy::calls`], of those that were signed for a region.
    pub fn calls_in(&self, region: &str, operation: &str) -> usize {
        self.count(|call| call.region == region && call.operation == operation)
    }

    /// As [`FaultProxy::calls`], of those that named a key in exactly this way.
    pub fn calls_for(&self, key_id: &str, operation: &str) -> usize {
        self.count(|call| call.key_id == key_id && call.operation == operation)
    }

    /// How many calls came in since the last reset.
    pub fn total_calls(&self) -> usize {
        self.count(|_| true)
    }

    fn count(&self, fits: impl Fn(&Call) -> bool) -> usize {
        self.shared.lock().calls.iter().filter(|(call, _)| fits(call)).map(|(_, count)| count).sum()
    }

    /// Starts counting again.
    pub fn reset_counts(&self) {
        self.shared.lock().calls.clear();
    }

    /// How many connections are open now.
    pub fn open_connections(&self) -> usize {
        self.shared.lock().connections
    }

    /// How many calls hang in the proxy now, or are delayed.
    pub fn hanging(&self) -> usize {
        self.shared.lock().hanging
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.lock().listener = Listener::Ended;
        self.shared.changed.notify_all();
        drop(TcpStream::connect(self.address));
    }
}

impl Call {
    fn of(request: &Message) -> Self {
        Self {
            operation: request.operation().to_owned(),
            region: request.region().to_owned(),
            key_id: request.key_id(),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A thread of the proxy that panicked has said so; the state is a few numbers and stays usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, mut reached: impl FnMut(&State) -> bool) {
        let guard = self.lock();
        let (_guard, outcome) = self
            .changed
            .wait_timeout_while(guard, Duration::from_secs(10), |state| !reached(state))
            .unwrap_or_else(PoisonError::into_inner);
        assert!(!outcome.timed_out(), "the proxy's accepting thread does not answer");
    }
}

fn accept(listener: TcpListener, address: SocketAddr, shared: &Arc<Shared>) {
    let mut listener = Some(listener);
    loop {
        let stream = listener.as_ref().and_then(|listener| listener.accept().ok());
        let mut state = shared.lock();
        if state.listener == Listener::CloseAsked {
            listener = None;
            state.listener = Listener::Closed;
            shared.changed.notify_all();
            while state.listener == Listener::Closed {
                state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        if state.listener == Listener::OpenAsked {
            listener = Some(listen_again(address));
            state.listener = Listener::Open;
            shared.changed.notify_all();
            continue;
        }
        if state.listener == Listener::Ended {
            return;
        }
        drop(state);
        if let Some((stream, _)) = stream {
            let shared = Arc::clone(shared);
            shared.lock().connections += 1;
            thread::spawn(move || {
                serve(&stream, &shared);
                shared.lock().connections -= 1;
            });
        }
    }
}

fn listen_again(address: SocketAddr) -> TcpListener {
    let mut listener = None;
    wait_until("the proxy has its port again", || {
        listener = TcpListener::bind(address).ok();
        listener.is_some()
    });
    listener.expect("it was waited for")
}

/// Serves one connection until the client closes it or a fault ends it.
fn serve(stream: &TcpStream, shared: &Shared) {
    let mut reader = BufReader::new(stream);
    while let Ok(Some(request)) = Message::read(&mut reader) {
        let fault = {
            let mut state = shared.lock();
            if state.listener != Listener::Open {
                return reset(stream);
            }
            *state.calls.entry(Call::of(&request)).or_default() += 1;
            state.rules.take(&request)
        };
        if !answer(stream, request, &fault, shared) {
            return;
        }
    }
}

/// Answers one request; says whether the connection goes on.
fn answer(mut stream: &TcpStream, request: Message, fault: &Fault, shared: &Shared) -> bool {
    match fault {
        Fault::Hang => {
            hang(stream, shared);
            return false;
        }
        Fault::Reset => {
            reset(stream);
            return false;
        }
        Fault::Endless => {
            send_endlessly(stream);
            return false;
        }
        Fault::Delay(wait) => {
            shared.lock().hanging += 1;
            thread::sleep(*wait);
            shared.lock().hanging -= 1;
        }
        _ => {}
    }
    let response = match fault {
        Fault::KmsError { status, code } => kms_error(*status, code),
        Fault::Answer(body) => Message::response(200, body.clone().into_bytes()),
        Fault::KmsMessage { status, code, message } => kms_answer(*status, code, message),
        Fault::Http(status) => Message::response(*status, b"<html>".to_vec()),
        Fault::Nonsense(Nonsense::Garbage) => Message::response(200, b"{\"Plaintext\": <html>".to_vec()),
        _ => match forward(request, shared.upstream) {
            Ok(response) => response,
            Err(_) => return false,
        },
    };
    let response = match fault {
        Fault::Nonsense(nonsense) => distort(response, *nonsense),
        Fault::Date(date) => {
            let mut response = response;
            response.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("date"));
            response.headers.push(("date".to_owned(), (*date).to_owned()));
            response
        }
        _ => response,
    };
    let bytes = response.to_bytes(true);
    let half = bytes.len() - response.body.len() / 2 - 1;
    match fault {
        Fault::HalfResponse => {
            // An error means that the client is gone, which is what closing says as well.
            let _ = stream.write_all(&bytes[..half]);
            false
        }
        Fault::ResetInTheMiddle => {
            let _ = stream.write_all(&bytes[..half]);
            // Give the client time to read the half: a reset discards what it has not read.
            thread::sleep(Duration::from_millis(20));
            reset(stream);
            false
        }
        _ => stream.write_all(&bytes).is_ok(),
    }
}

fn forward(mut request: Message, upstream: SocketAddr) -> io::Result<Message> {
    let region = request.region().to_owned();
    if !dialect::to_emulator(&mut request) {
        return Ok(kms_error(400, "NotFoundException"));
    }
    let mut response = http::exchange(upstream, &request)?;
    response.body = dialect::from_emulator(&response.body, &region);
    Ok(response)
}

/// Waits until the client gives up.
fn hang(mut stream: &TcpStream, shared: &Shared) {
    shared.lock().hanging += 1;
    // The client sends nothing while it waits for its answer, so this returns when it closes the connection.
    let _ = stream.read(&mut [0]);
    shared.lock().hanging -= 1;
}

/// Closes a connection with RST instead of FIN, when the caller drops it.
fn reset(stream: &TcpStream) {
    // If the socket is broken already, then the client has what this is for.
    let _ = set_socket_linger(stream, Some(Duration::ZERO));
}

/// Sends an answer of 3 GB until the client has enough of it.
fn send_endlessly(mut stream: &TcpStream) {
    const CHUNK: usize = 64 * 1024;
    const CHUNKS: usize = 3 * 1024 * 1024 * 1024 / CHUNK;
    let head = format!(
        "HTTP/1.1 200 Answer\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: {}\r\n\r\n",
        CHUNK * CHUNKS
    );
    let chunk = vec![b' '; CHUNK];
    let _ = stream.write_all(head.as_bytes());
    for _ in 0..CHUNKS {
        if stream.write_all(&chunk).is_err() {
            break;
        }
    }
}

fn kms_error(status: u16, code: &str) -> Message {
    kms_answer(status, code, &format!("{code} from the fault proxy"))
}

fn kms_answer(status: u16, code: &str, message: &str) -> Message {
    let body = serde_json::json!({ "__type": code, "message": message });
    Message::response(status, body.to_string().into_bytes())
}

fn distort(mut response: Message, nonsense: Nonsense) -> Message {
    let Ok(mut body) = serde_json::from_slice::<Value>(&response.body) else {
        return response;
    };
    match nonsense {
        Nonsense::Garbage => return response,
        Nonsense::WrongKeyId => body["KeyId"] = FOREIGN_KEY_ARN.into(),
        Nonsense::ShortPlaintext => body["Plaintext"] = SHORT_PLAINTEXT.into(),
        Nonsense::OtherPlaintext => body["Plaintext"] = OTHER_PLAINTEXT.into(),
        Nonsense::EmptyBlob => body["CiphertextBlob"] = "".into(),
        Nonsense::NoPlaintext => {
            if let Some(fields) = body.as_object_mut() {
                fields.remove("Plaintext");
            }
        }
    }
    response.body = body.to_string().into_bytes();
    response
}
