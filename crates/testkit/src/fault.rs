//! The faults that the proxy can show, and the rules that choose one for a call.

use std::time::Duration;

use crate::http::Message;

/// What happens to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Answers as the emulator does.
    Pass,
    /// Answers as the emulator does, after a wait.
    Delay(Duration),
    /// Resets the connection when the request has been read, before a byte of the answer.
    Reset,
    /// Sends half of the emulator's answer and then resets the connection.
    ResetInTheMiddle,
    /// Sends half of the emulator's answer and then closes the connection as if that were all.
    HalfResponse,
    /// Reads the request and never answers. The connection stays open until the client closes it.
    Hang,
    /// Answers with an error in the form of KMS. The emulator never sees the call.
    KmsError {
        /// The HTTP status.
        status: u16,
        /// The error code, for example `ThrottlingException`.
        code: &'static str,
    },
    /// Answers 200 with this body. The emulator never sees the call.
    Answer(String),
    /// As [`Fault::KmsError`], with a message.
    KmsMessage {
        /// The HTTP status.
        status: u16,
        /// The error code.
        code: &'static str,
        /// The message.
        message: &'static str,
    },
    /// Answers with an HTTP error, a request id and no error code.
    Http(u16),
    /// Answers 200 with a body of 3 GB, as long as anybody reads it.
    Endless,
    /// Answers 200 with something that no KMS says.
    Nonsense(Nonsense),
    /// Answers as the emulator does, with another `Date` (RFC 9110, section 6.6.1).
    Date(&'static str),
}

/// Answers with status 200 that must not be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nonsense {
    /// A body that is no JSON.
    Garbage,
    /// The emulator's answer under the key ARN of another key.
    WrongKeyId,
    /// The emulator's answer with a data key of 16 bytes.
    ShortPlaintext,
    /// The emulator's answer with another data key of 32 bytes.
    OtherPlaintext,
    /// The emulator's answer without its `Plaintext`.
    NoPlaintext,
    /// The emulator's answer with an empty `CiphertextBlob`.
    EmptyBlob,
}

impl Fault {
    /// An answer of KMS with this status and error code.
    pub fn kms_error(status: u16, code: &'static str) -> Self {
        Self::KmsError { status, code }
    }
}

/// Which calls a fault is for.
#[derive(Clone, Debug)]
pub struct Rule {
    fault: Fault,
    operation: Option<&'static str>,
    region: Option<&'static str>,
    key_id: Option<String>,
    access_key: Option<&'static str>,
    remaining: Option<usize>,
}

impl Rule {
    /// A fault for every call from now on.
    pub fn every(fault: Fault) -> Self {
        Self { fault, operation: None, region: None, key_id: None, access_key: None, remaining: None }
    }

    /// Only for one operation, for example `Decrypt`.
    #[must_use]
    pub fn only(mut self, operation: &'static str) -> Self {
        self.operation = Some(operation);
        self
    }

    /// Only for calls that are signed for a region.
    #[must_use]
    pub fn in_region(mut self, region: &'static str) -> Self {
        self.region = Some(region);
        self
    }

    /// Only for calls that name a key in exactly this way.
    #[must_use]
    pub fn for_key(mut self, key_id: &str) -> Self {
        self.key_id = Some(key_id.to_owned());
        self
    }

    /// Only for calls that are signed with an access key.
    #[must_use]
    pub fn signed_by(mut self, access_key: &'static str) -> Self {
        self.access_key = Some(access_key);
        self
    }

    /// Only for the next `calls` calls that it fits.
    #[must_use]
    pub fn times(mut self, calls: usize) -> Self {
        self.remaining = Some(calls);
        self
    }

    fn fits(&self, call: &Message) -> bool {
        self.remaining != Some(0)
            && self.operation.is_none_or(|operation| operation == call.operation())
            && self.region.is_none_or(|region| region == call.region())
            && self.access_key.is_none_or(|access_key| access_key == call.access_key())
            && self.key_id.as_ref().is_none_or(|key_id| *key_id == call.key_id())
    }
}

impl From<Fault> for Rule {
    fn from(fault: Fault) -> Self {
        Self::every(fault)
    }
}

/// The rules in force, the first that fits a call wins.
#[derive(Default)]
pub(crate) struct Rules(Vec<Rule>);

impl Rules {
    pub(crate) fn replace(&mut self, rules: Vec<Rule>) {
        self.0 = rules;
    }

    /// The fault for a call, which uses up one of its rule's times.
    pub(crate) fn take(&mut self, call: &Message) -> Fault {
        let Some(rule) = self.0.iter_mut().find(|rule| rule.fits(call)) else {
            return Fault::Pass;
        };
        if let Some(remaining) = &mut rule.remaining {
            *remaining -= 1;
        }
        rule.fault.clone()
    }
}
