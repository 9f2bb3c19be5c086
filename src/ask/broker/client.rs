//! One command to the broker. A connection that has carried a whole one carries the next.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use envelope_broker::framing::ResponseReader;
use envelope_broker::protocol::{self, Command, Response};
use envelope_core::request::{KmsError, Reply, Request};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use rustix::net::{connect as connect_socket, recv, send, socket_with, sockopt};
use zeroize::Zeroize;

use super::SOCKET;
use crate::pg::{settings, waiting};

/// The broker shows four times a second that it lives.
const SILENCE: Duration = Duration::from_secs(2);
/// The broker keeps the time limit of KMS calls, of which it makes two at most; this much later it must have answered.
const GRACE: Duration = Duration::from_secs(2);

/// Read at a time: a few data keys.
const READ_BYTES: usize = 2 * 1024;

/// Why the broker was of no help.
#[derive(Debug)]
pub enum Lost {
    /// It has ended, so that another one may be started.
    Ended,
    /// Something is wrong with it, and other sessions had better leave it alone: for the log.
    Unwell(String),
    /// Something is wrong with this session: for the log.
    Own(String),
}

impl std::fmt::Display for Lost {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ended => formatter.write_str("it has ended"),
            Self::Unwell(reason) | Self::Own(reason) => formatter.write_str(reason),
        }
    }
}

thread_local! {
    /// A connection that carries nothing now. The broker closes it when it has carried nothing for a while.
    static IDLE: Cell<Option<OwnedFd>> = const { Cell::new(None) };
}

/// What comes back for several requests.
pub type Replies = Vec<Result<Reply, KmsError>>;

/// A command that is under way. Dropping it closes its connection, which tells the broker that it was cancelled; nothing of it
/// is left for the next one.
pub struct Exchange {
    /// `None` when the response has come.
    socket: Option<OwnedFd>,
    reader: ResponseReader,
    silent_after: Instant,
    must_end: Instant,
}

/// Connects to the broker.
pub(super) fn connect() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect_socket(&socket, &SocketAddrUnix::new(SOCKET.as_str())?)?;
    // The directory is the server's own; that nobody else listens there is checked all the same.
    match sockopt::socket_peercred(&socket)?.uid == rustix::process::geteuid() {
        true => Ok(socket),
        false => Err(Errno::ACCESS),
    }
}

impl Exchange {
    /// Sends a command over the connection that was kept, if there is one and the broker has not closed it.
    pub(super) fn start_kept(command: &Command<&Request>) -> Option<Self> {
        let socket = IDLE.take()?;
        // Whatever is wrong with it: another connection tells more.
        Self::send(socket, command).ok()
    }

    /// Sends a command that may take as long as a KMS call.
    pub(super) fn start(socket: OwnedFd, command: &Command<&Request>) -> Result<Self, Lost> {
        waiting::watch(socket.as_fd()).map_err(|error| Lost::Own(format!("its socket cannot be watched: {error}")))?;
        Self::send(socket, command)
    }

    fn send(socket: OwnedFd, command: &Command<&Request>) -> Result<Self, Lost> {
        let bytes = protocol::encode_command(command);
        // A socket that carries nothing has room for all.
        match send(&socket, &bytes, SendFlags::NOSIGNAL) {
            Ok(sent) if sent == bytes.len() => {}
            Ok(_) => return Err(Lost::Unwell("it took only a part of the request".into())),
            Err(Errno::PIPE | Errno::CONNRESET) => return Err(Lost::Ended),
            Err(error) => return Err(Lost::Unwell(format!("the request could not be sent: {error}"))),
        }
        let now = Instant::now();
        Ok(Self {
            socket: Some(socket),
            reader: ResponseReader::new(),
            silent_after: now + SILENCE,
            must_end: now + 2 * settings::kms_timeout() + GRACE,
        })
    }

    /// When to look again even if nothing has come.
    pub fn deadline(&self) -> Instant {
        self.silent_after.min(self.must_end)
    }

    /// The reply, if it is there. Reads all that has come.
    pub fn try_take(&mut self) -> Result<Option<Result<Reply, KmsError>>, Lost> {
        match self.try_take_response()? {
            None => Ok(None),
            Some(Response::Reply(reply)) => {
                IDLE.set(self.socket.take());
                Ok(Some(reply))
            }
            Some(_) => Err(malformed()),
        }
    }

    /// As [`Self::try_take`], of a command of so many requests.
    pub fn try_take_many(&mut self, requests: usize) -> Result<Option<Replies>, Lost> {
        match self.try_take_response()? {
            None => Ok(None),
            Some(Response::Replies(replies)) if replies.len() == requests => {
                IDLE.set(self.socket.take());
                Ok(Some(replies))
            }
            Some(_) => Err(malformed()),
        }
    }

    /// The response, if it is there. Reads all that has come.
    pub(super) fn try_take_response(&mut self) -> Result<Option<Response>, Lost> {
        // Nothing is in it but what comes, and that is wiped when it is taken: who polls looks often.
        let mut buffer = [MaybeUninit::uninit(); READ_BYTES];
        loop {
            let Some(socket) = &self.socket else { return Err(malformed()) };
            let received = match recv(socket, &mut buffer[..], RecvFlags::empty()) {
                Ok((([], _), _)) | Err(Errno::CONNRESET) => return Err(Lost::Ended),
                Ok(((received, _), _)) => received,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return self.nothing_yet(),
                Err(error) => return Err(Lost::Unwell(format!("the answer could not be received: {error}"))),
            };
            self.silent_after = Instant::now() + SILENCE;
            let taken = self.reader.take(received);
            received.zeroize();
            if let Some(response) = taken.map_err(|_| malformed())? {
                return Ok(Some(response));
            }
        }
    }

    fn nothing_yet(&self) -> Result<Option<Response>, Lost> {
        let now = Instant::now();
        if now >= self.silent_after {
            return Err(Lost::Unwell("it shows no sign of life".into()));
        }
        if now >= self.must_end {
            return Err(Lost::Unwell("it does not answer".into()));
        }
        Ok(None)
    }
}

fn malformed() -> Lost {
    Lost::Unwell("its answer is malformed".into())
}
