//! Just enough HTTP/1.1 for the emulator and the proxy: heads, and bodies with a content-length.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// How long the harness waits for the emulator before it calls it broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// A head line or a header longer than this is nobody's we talk to.
const LONGEST_LINE: u64 = 64 * 1024;

/// A request or a response. Deliberately without Debug: a body may hold a data key.
pub struct Message {
    /// `POST / HTTP/1.1` or `HTTP/1.1 200 OK`.
    pub first_line: String,
    /// Names as they came.
    pub headers: Vec<(String, String)>,
    /// As many bytes as `content-length` says.
    pub body: Vec<u8>,
}

impl Message {
    /// Reads one message. `None` if the peer closed the connection instead of sending another one.
    pub fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let Some(first_line) = read_line(reader)? else {
            return Ok(None);
        };
        let mut headers = Vec::new();
        loop {
            let line = read_line(reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
            headers.push((name.trim().to_owned(), value.trim().to_owned()));
        }
        let mut message = Self { first_line, headers, body: Vec::new() };
        let length = match message.header("content-length") {
            Some(length) => length.parse().map_err(|_| io::ErrorKind::InvalidData)?,
            None => 0,
        };
        message.body.resize(length, 0);
        reader.read_exact(&mut message.body)?;
        Ok(Some(message))
    }

    /// A response as KMS sends it.
    pub fn response(status: u16, body: Vec<u8>) -> Self {
        let headers = vec![
            ("content-type".to_owned(), "application/x-amz-json-1.1".to_owned()),
            ("x-amzn-requestid".to_owned(), REQUEST_ID.to_owned()),
        ];
        Self { first_line: format!("HTTP/1.1 {status} Answer"), headers, body }
    }

    /// The message as bytes, its length stated and the connection kept or closed as asked.
    pub fn to_bytes(&self, keep_alive: bool) -> Vec<u8> {
        let mut bytes = format!("{}\r\n", self.first_line).into_bytes();
        for (name, value) in &self.headers {
            if !name.eq_ignore_ascii_case("content-length") && !name.eq_ignore_ascii_case("connection") {
                bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
            }
        }
        let connection = if keep_alive { "keep-alive" } else { "close" };
        bytes.extend_from_slice(
            format!("content-length: {}\r\nconnection: {connection}\r\n\r\n", self.body.len()).as_bytes(),
        );
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// The value of a header, by its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The KMS operation that a request asks for: the last part of `TrentService.Decrypt`.
    pub fn operation(&self) -> &str {
        self.header("x-amz-target").and_then(|target| target.rsplit('.').next()).unwrap_or("")
    }

    /// The region that a request is signed for: the third part of `Credential=ID/DATE/REGION/kms/aws4_request`.
    pub fn region(&self) -> &str {
        self.credential(2)
    }

    /// The id of the access key that a request is signed with: the first part of the same.
    pub fn access_key(&self) -> &str {
        self.credential(0)
    }

    fn credential(&self, part: usize) -> &str {
        let credential = self.header("authorization").and_then(|header| header.split_once("Credential="));
        credential.and_then(|(_, scope)| scope.split('/').nth(part)).unwrap_or("")
    }

    /// How a request names its key.
    pub fn key_id(&self) -> String {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body["KeyId"].as_str().unwrap_or("").to_owned()
    }

    /// The status of a response.
    pub fn status(&self) -> u16 {
        self.first_line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }
}

/// The request id of the responses that the proxy makes up.
pub const REQUEST_ID: &str = "11111111-2222-3333-4444-555555555555";

/// Sends a message on a connection of its own and reads the answer.
pub fn exchange(address: SocketAddr, request: &Message) -> io::Result<Message> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    stream.write_all(&request.to_bytes(false))?;
    Message::read(&mut BufReader::new(stream))?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn read_line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    reader.take(LONGEST_LINE).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    let line = line.strip_suffix(b"\r\n").ok_or(io::ErrorKind::InvalidData)?;
    String::from_utf8(line.to_vec()).map(Some).map_err(|_| io::ErrorKind::InvalidData.into())
}
