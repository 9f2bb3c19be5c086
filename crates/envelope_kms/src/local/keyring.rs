//! The key file of the local provider: read whole, replaced whole.
//!
//! ```json
//! {"format": 1, "keys": {"dev": {"current": 2, "versions": {"1": "<base64>", "2": "<base64>"}}}}
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use envelope_core::keys::{KEY_BYTES, KeyBytes};
use envelope_core::request::KmsErrorKind;
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize, Serializer};
use zeroize::Zeroizing;

const FILE_FORMAT: u32 = 1;
/// Room for 100,000 keys. It is read whole, by the broker, too, whose memory is the server's.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// A 256-bit key encryption key. Zeroized when dropped; has no Debug. Boxed: what moves leaves its bytes behind.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Kek(Box<KeyBytes>);

impl Kek {
    fn random() -> Result<Self, KmsErrorKind> {
        let mut kek = Self(KeyBytes::zero());
        getrandom::fill(&mut **kek.0).map_err(|error| KmsErrorKind::Keyring(error.to_string()))?;
        Ok(kek)
    }

    pub(super) fn cipher(&self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &**self.0).expect("an AES-256 key is 32 bytes"))
    }
}

impl TryFrom<String> for Kek {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let text = Zeroizing::new(text);
        let bytes = Zeroizing::new(BASE64.decode(text.as_bytes()).map_err(|_| "a key is not base64")?);
        let mut kek = Self(KeyBytes::zero());
        if bytes.len() != KEY_BYTES {
            return Err("a key is not 32 bytes long");
        }
        kek.0.copy_from_slice(&bytes);
        Ok(kek)
    }
}

impl Serialize for Kek {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(BASE64.encode(**self.0)))
    }
}

/// A key and its versions.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Key {
    /// The version that wraps new data keys: always one of `versions`.
    pub(super) current: u32,
    pub(super) versions: BTreeMap<u32, Kek>,
}

impl Key {
    pub(super) fn random() -> Result<Self, KmsErrorKind> {
        Ok(Self { current: 1, versions: BTreeMap::from([(1, Kek::random()?)]) })
    }

    /// Adds a version, makes it the current one and returns it.
    pub(super) fn rotate(&mut self) -> Result<u32, KmsErrorKind> {
        let newest = self.versions.keys().next_back().copied().unwrap_or_default();
        let next =
            newest.checked_add(1).ok_or_else(|| KmsErrorKind::Keyring("has too many versions of a key".into()))?;
        self.versions.insert(next, Kek::random()?);
        self.current = next;
        Ok(next)
    }

    pub(super) fn current_version(&self) -> &Kek {
        &self.versions[&self.current]
    }
}

/// All keys of a file, by name.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Keyring {
    format: u32,
    pub(super) keys: BTreeMap<String, Key>,
}

impl Keyring {
    pub(super) fn read(path: &Path) -> Result<Self, KmsErrorKind> {
        Self::read_if_exists(path)?.ok_or_else(|| problem(path, "does not exist"))
    }

    pub(super) fn read_or_new(path: &Path) -> Result<Self, KmsErrorKind> {
        let new = || Self { format: FILE_FORMAT, keys: BTreeMap::new() };
        Ok(Self::read_if_exists(path)?.unwrap_or_else(new))
    }

    fn read_if_exists(path: &Path) -> Result<Option<Self>, KmsErrorKind> {
        let unreadable = |error: io::Error| problem(path, &format!("cannot be read: {error}"));
        // Not blocking: to open a FIFO waits for somebody who writes to it.
        let file = match File::options().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(unreadable)?,
        };
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(problem(path, "is not a file"));
        }
        if metadata.mode() & 0o077 != 0 {
            let mode = metadata.mode() & 0o7777;
            return Err(problem(path, &format!("can be read or written by others (mode {mode:04o})")));
        }
        if metadata.len() > MAX_FILE_BYTES {
            return Err(problem(path, &format!("is larger than {} MB", MAX_FILE_BYTES >> 20)));
        }
        // Room for all of it, so that reading leaves no copies behind in memory that grew.
        let mut json = Zeroizing::new(Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default() + 1));
        file.take(MAX_FILE_BYTES).read_to_end(&mut json).map_err(unreadable)?;
        // The parser's own message may quote the file.
        let keyring: Self = serde_json::from_slice(&json).map_err(|error| {
            problem(path, &format!("is corrupt at line {}, column {}", error.line(), error.column()))
        })?;
        if keyring.format != FILE_FORMAT {
            return Err(problem(path, &format!("has unsupported format {}", keyring.format)));
        }
        if keyring.keys.values().any(|key| !key.versions.contains_key(&key.current)) {
            return Err(problem(path, "is corrupt: it lacks the current version of a key"));
        }
        Ok(Some(keyring))
    }

    /// Replaces the file as a whole, or not at all, and lastingly: temporary file, fsync, rename, fsync of the directory.
    pub(super) fn write(&self, path: &Path) -> Result<(), KmsErrorKind> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = directory_of(path).join(format!(".{name}.new"));
        let replaced = self.write_to(&temporary).and_then(|()| {
            fs::rename(&temporary, path)?;
            File::open(directory_of(path))?.sync_all()
        });
        replaced.map_err(|error| {
            // It may not exist; the error that led here is the one to report.
            let _ = fs::remove_file(&temporary);
            problem(path, &format!("cannot be written: {error}"))
        })
    }

    fn write_to(&self, temporary: &Path) -> io::Result<()> {
        let json = Zeroizing::new(serde_json::to_vec_pretty(self)?);
        // One that a crash left behind: whoever holds the lock is its only writer.
        match fs::remove_file(temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
        file.write_all(&json)?;
        file.sync_all()
    }
}

/// The right to replace the file. The lock is on its directory, which stays when the file is replaced.
pub(super) struct KeyringLock {
    _directory: File,
}

impl KeyringLock {
    /// `None` while another process has it.
    pub(super) fn try_acquire(path: &Path) -> Result<Option<Self>, KmsErrorKind> {
        let failed = |error: io::Error| problem(path, &format!("cannot be locked: {error}"));
        let directory = File::open(directory_of(path)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                KmsErrorKind::Keyring(format!("the directory of \"{}\" does not exist", path.display()))
            }
            _ => failed(error),
        })?;
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _directory: directory })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(failed(error.into())),
        }
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Somebody else has had the lock for too long.
pub(super) fn is_locked(path: &Path) -> KmsErrorKind {
    problem(path, "cannot be changed: another process keeps its directory locked")
}

fn problem(path: &Path, problem: &str) -> KmsErrorKind {
    KmsErrorKind::Keyring(format!("\"{}\" {problem}", path.display()))
}
