//! Which answers are worth another attempt: those that the table of [`super::codes`] calls an outage, and those that cannot
//! be read. Connections that fail, and time limits, are left to the SDK.

use aws_smithy_runtime_api::client::interceptors::context::InterceptorContext;
use aws_smithy_runtime_api::client::retries::classifiers::{ClassifyRetry, RetryAction, RetryClassifierPriority};

use super::failure::Failure;
use envelope_core::request::KmsErrorKind;

/// Decides by what KMS said.
#[derive(Debug)]
pub(super) struct ByAnswer;

impl ClassifyRetry for ByAnswer {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let Some(response) = context.response() else { return RetryAction::NoActionIndicated };
        let body = response.body().bytes().unwrap_or_default();
        match Failure::of_response(response.status().as_u16(), None, body).map(|failure| failure.kind) {
            Some(KmsErrorKind::Throttled) => RetryAction::throttling_error(),
            Some(kind) if kind.is_outage() => RetryAction::transient_error(),
            Some(_) => RetryAction::RetryForbidden,
            // What was sent as a success is none.
            None if context.output_or_error().is_some_and(|result| result.is_err()) => RetryAction::transient_error(),
            None => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "By what KMS said"
    }

    fn priority(&self) -> RetryClassifierPriority {
        RetryClassifierPriority::run_after(RetryClassifierPriority::transient_error_classifier())
    }
}
