//! What the SDK's attempts at one call came to: their number, where they went, and what KMS said last, in case time runs out
//! before the next one has ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use aws_sdk_kms::config::interceptors::{BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextRef};
use aws_sdk_kms::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_kms::error::BoxError;
use aws_sdk_kms::primitives::{DateTime, DateTimeFormat};
use envelope_core::request::KmsErrorKind;
use parking_lot::Mutex;

use super::failure::Failure;

/// Watches the attempts at one call.
#[derive(Clone, Debug, Default)]
pub(super) struct Attempts(Arc<Watched>);

#[derive(Debug, Default)]
struct Watched {
    made: AtomicU32,
    throttled: AtomicU32,
    breaker_was_open: AtomicBool,
    /// Host and port.
    host: Mutex<Option<String>>,
    is_under_way: AtomicBool,
    /// The error that KMS answered the last attempt with that has ended. One that the call's own end cuts off says nothing.
    answer: Mutex<Option<Failure>>,
    /// The time of the last answer by the clock of whoever answered, in seconds since 1970.
    server_seconds: Mutex<Option<i64>>,
}

impl Attempts {
    /// As while the SDK waits to try again.
    #[cfg(test)]
    pub(super) fn answered_with(failure: Failure) -> Self {
        let attempts = Self::default();
        *attempts.0.answer.lock() = Some(failure);
        attempts
    }

    /// How many were made.
    pub(super) fn made(&self) -> u32 {
        self.0.made.load(Ordering::Relaxed)
    }

    /// Host and port that they went to.
    pub(super) fn host(&self) -> Option<String> {
        self.0.host.lock().clone()
    }

    /// When the last answer was sent, by the clock of whoever sent it, in seconds since 1970.
    pub(super) fn server_seconds(&self) -> Option<i64> {
        *self.0.server_seconds.lock()
    }

    /// How many KMS answered with throttling.
    pub(super) fn throttled(&self) -> u32 {
        self.0.throttled.load(Ordering::Relaxed)
    }

    /// Notes that none may be made.
    pub(super) fn set_breaker_was_open(&self) {
        self.0.breaker_was_open.store(true, Ordering::Relaxed);
    }

    /// Whether none could be made.
    pub(super) fn breaker_was_open(&self) -> bool {
        self.0.breaker_was_open.load(Ordering::Relaxed)
    }

    /// What KMS said, if time ran out while the SDK waited to try again or had just begun to.
    pub(super) fn take_answer(&self) -> Option<Failure> {
        self.0.answer.lock().take()
    }
}

impl Intercept for Attempts {
    fn name(&self) -> &'static str {
        "Attempts"
    }

    fn read_before_attempt(
        &self,
        _context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.made.fetch_add(1, Ordering::Relaxed);
        // The SDK does not say so when an attempt has taken all of its time.
        if self.0.is_under_way.swap(true, Ordering::Relaxed) {
            self.take_answer();
        }
        Ok(())
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        *self.0.host.lock() = host_of(context.request().uri());
        Ok(())
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.is_under_way.store(false, Ordering::Relaxed);
        let mut answer = None;
        if let Some(response) = context.response() {
            let date =
                response.headers().get("date").and_then(|date| DateTime::from_str(date, DateTimeFormat::HttpDate).ok());
            *self.0.server_seconds.lock() = date.map(|date| date.secs());
            let request_id = response.headers().get("x-amzn-requestid").map(str::to_owned);
            let body = response.body().bytes().unwrap_or_default();
            let failure = Failure::of_response(response.status().as_u16(), request_id, body);
            let outage = failure.filter(|failure| failure.kind.is_outage());
            if outage.as_ref().is_some_and(|failure| failure.kind == KmsErrorKind::Throttled) {
                self.0.throttled.fetch_add(1, Ordering::Relaxed);
            }
            answer = outage;
        }
        *self.0.answer.lock() = answer;
        Ok(())
    }
}

/// Host and port of a URI.
fn host_of(uri: &str) -> Option<String> {
    let (_, rest) = uri.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    Some(authority.rsplit('@').next()?.to_owned()).filter(|host| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_told_without_credentials() {
        for (uri, host) in [
            ("https://kms.us-west-2.amazonaws.com/", Some("kms.us-west-2.amazonaws.com")),
            ("http://127.0.0.1:4566/path", Some("127.0.0.1:4566")),
            ("http://user:secret@proxy:1?query", Some("proxy:1")),
            ("/", None),
        ] {
            assert_eq!(host_of(uri).as_deref(), host, "{uri}");
        }
    }
}
