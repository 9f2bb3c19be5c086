//! The KMS emulator: moto's server on a free port, one per test process.

use std::env;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::{Value, json};

pub use crate::dialect::{ACCOUNT, REGION};
use crate::http::{self, Message};
use crate::waiting::is_reached_within;
use crate::{dialect, process, scratch};

static EMULATOR: LazyLock<Emulator> = LazyLock::new(Emulator::start);

/// A running emulator. It ends with the test process.
pub struct Emulator {
    address: SocketAddr,
    server: Child,
}

/// A KMS key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KmsKey {
    /// The key ARN.
    pub arn: String,
    /// The key's uuid, or `mrk-...`.
    pub id: String,
}

/// An error answer of the emulator.
#[derive(Debug)]
pub struct EmulatorError {
    /// The error code, for example `InvalidCiphertextException`.
    pub code: String,
}

impl Emulator {
    /// The emulator of this test process.
    pub fn shared() -> &'static Self {
        &EMULATOR
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes a symmetric key.
    pub fn create_key(&self) -> KmsKey {
        self.create_key_in(REGION)
    }

    /// Makes a symmetric key in a region.
    pub fn create_key_in(&self, region: &str) -> KmsKey {
        // AWS takes it for granted.
        let answer = self.call_in(region, "CreateKey", &json!({ "KeyUsage": "ENCRYPT_DECRYPT" }));
        let answer = answer.expect("the emulator makes keys");
        let text = |name: &str| answer["KeyMetadata"][name].as_str().expect("a key has it").to_owned();
        KmsKey { arn: text("Arn"), id: text("KeyId") }
    }

    /// Makes a multi-Region key, whose id begins with `mrk-`.
    pub fn create_multi_region_key(&self) -> KmsKey {
        let key = self.create_key();
        let id = dialect::make_multi_region(&key.id);
        KmsKey { arn: key.arn.replace(&key.id, &id), id }
    }

    /// Makes a replica of a multi-Region key.
    pub fn create_replica(&self, key: &KmsKey, region: &str) -> KmsKey {
        dialect::add_replica(&key.id, region);
        KmsKey { arn: key.arn.replace(REGION, region), id: key.id.clone() }
    }

    /// Makes an alias (`alias/name`) of a key and returns its ARN.
    pub fn create_alias(&self, alias: &str, key: &KmsKey) -> String {
        self.expect("CreateAlias", &json!({ "AliasName": alias, "TargetKeyId": key.id }));
        format!("arn:aws:kms:{REGION}:{ACCOUNT}:{alias}")
    }

    /// Makes an alias of a multi-Region key's replica in its region.
    pub fn create_replica_alias(&self, region: &str, alias: &str, key: &KmsKey) {
        dialect::add_alias(region, alias, &key.id);
    }

    /// Makes an alias of a key of a region.
    pub fn create_alias_in(&self, region: &str, alias: &str, key: &KmsKey) {
        let input = json!({ "AliasName": alias, "TargetKeyId": key.id });
        self.call_in(region, "CreateAlias", &input).expect("the emulator makes aliases");
    }

    /// Points an alias to another key.
    pub fn update_alias(&self, alias: &str, key: &KmsKey) {
        self.expect("UpdateAlias", &json!({ "AliasName": alias, "TargetKeyId": key.id }));
    }

    /// Disables a key. The emulator goes on using it all the same: see the fault proxy for the error.
    pub fn disable_key(&self, key: &KmsKey) {
        self.expect("DisableKey", &json!({ "KeyId": key.id }));
    }

    /// Enables a key again.
    pub fn enable_key(&self, key: &KmsKey) {
        self.expect("EnableKey", &json!({ "KeyId": key.id }));
    }

    /// Decrypts a wrapped data key, in base64, under a context; returns the key ARN that did it.
    pub fn decrypt(&self, wrapped: &str, context: &Value) -> Result<String, EmulatorError> {
        let answer = self.call("Decrypt", &json!({ "CiphertextBlob": wrapped, "EncryptionContext": context }))?;
        Ok(answer["KeyId"].as_str().expect("Decrypt answers with a KeyId").to_owned())
    }

    /// Calls any operation of KMS.
    pub fn call(&self, operation: &str, input: &Value) -> Result<Value, EmulatorError> {
        self.call_in(REGION, operation, input)
    }

    /// As [`Emulator::call`], in a region.
    pub fn call_in(&self, region: &str, operation: &str, input: &Value) -> Result<Value, EmulatorError> {
        let mut request = request(region, operation, input);
        if !dialect::to_emulator(&mut request) {
            return Err(EmulatorError { code: "NotFoundException".into() });
        }
        let answer = http::exchange(self.address, &request).expect("the emulator answers");
        let body: Value = serde_json::from_slice(&dialect::from_emulator(&answer.body, region)).unwrap_or(Value::Null);
        if answer.status() == 200 {
            return Ok(body);
        }
        Err(EmulatorError { code: body["__type"].as_str().unwrap_or("unknown").to_owned() })
    }

    fn expect(&self, operation: &str, input: &Value) -> Value {
        self.call(operation, input).unwrap_or_else(|error| panic!("{operation} failed: {error:?}"))
    }

    fn start() -> Self {
        let program = program();
        assert!(
            program.exists(),
            "no KMS emulator at {}: run `make test-server`, or set MOTO_SERVER to a moto_server",
            program.display()
        );
        let port = free_port();
        let log_path = scratch::directory().join("emulator.log");
        let log = File::create(&log_path).expect("the scratch directory can be written");
        let mut command = process::bound(program, "KILL");
        command
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(log.try_clone().expect("a file handle can be cloned"))
            .stderr(log);
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("AWS_") {
                command.env_remove(name);
            }
        }
        let server = process::spawn(command);
        let mut emulator = Self { address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), server };
        let mut has_ended = false;
        is_reached_within(Duration::from_secs(60), || {
            has_ended = emulator.server.try_wait().expect("a child can be waited for").is_some();
            has_ended || emulator.answers()
        });
        assert!(
            !has_ended && emulator.answers(),
            "the KMS emulator does not answer:\n{}",
            std::fs::read_to_string(&log_path).unwrap_or_default()
        );
        emulator
    }

    fn answers(&self) -> bool {
        http::exchange(self.address, &request(REGION, "ListKeys", &json!({}))).is_ok()
    }
}

/// A port of the loopback interface that nobody uses now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}

fn program() -> PathBuf {
    env::var_os("MOTO_SERVER")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/venv/bin/moto_server"), PathBuf::from)
}

/// A request of KMS's JSON protocol. The emulator reads the region from the signature and checks nothing of it.
fn request(region: &str, operation: &str, input: &Value) -> Message {
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential=test/20260101/{region}/kms/aws4_request, SignedHeaders=host, Signature=00"
    );
    let headers = [
        ("host", "127.0.0.1"),
        ("content-type", "application/x-amz-json-1.1"),
        ("x-amz-target", &format!("TrentService.{operation}")),
        ("authorization", &authorization),
    ];
    Message {
        first_line: "POST / HTTP/1.1".into(),
        headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        body: input.to_string().into_bytes(),
    }
}
