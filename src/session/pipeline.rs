//! Many requests about data keys at a time, so that a rotation does not wait for one data key after the other.

use std::collections::VecDeque;

use crate::error::Error;

/// Requests at a time: far below KMS's quotas, and enough to hide its latency.
const MAX_PENDING: usize = 16;

/// Has `start` start a request for each job, and has `finish` wait for each of them.
///
/// # Errors
/// In an outage, and for what is wrong with this session, as soon as what was started has ended: an answer that has been paid for
/// is kept. What is wrong with single jobs is an error when all others are done: the first one.
pub fn run<J, P>(
    jobs: impl IntoIterator<Item = J>,
    start: impl Fn(&J) -> Result<P, Error>,
    finish: impl Fn(J, P) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut jobs = jobs.into_iter().peekable();
    let mut pending = VecDeque::new();
    let mut first_error = None;
    loop {
        while pending.len() < MAX_PENDING
            && let Some(job) = jobs.peek()
        {
            let started = start(job);
            // The broker may have those that are under way: then they were no calls.
            if matches!(started, Err(Error::TooManyKmsCalls(_))) && !pending.is_empty() {
                break;
            }
            let job = jobs.next().expect("it was peeked at");
            match started {
                Ok(request) => pending.push_back((job, request)),
                Err(error) if concerns_one(&error) => first_error = first_error.or(Some(error)),
                Err(error) => return Err(give_up(error, pending, finish)),
            }
        }
        let Some((job, request)) = pending.pop_front() else {
            return first_error.map_or(Ok(()), Err);
        };
        match finish(job, request) {
            Ok(()) => {}
            Err(error) if concerns_one(&error) => first_error = first_error.or(Some(error)),
            Err(error) => return Err(give_up(error, pending, finish)),
        }
    }
}

/// Starts nothing any more, and takes the answers to what was started.
fn give_up<J, P>(error: Error, pending: VecDeque<(J, P)>, finish: impl Fn(J, P) -> Result<(), Error>) -> Error {
    for (job, request) in pending {
        // It may have failed by the same cause.
        let _ = finish(job, request);
    }
    error
}

/// Whether an error is about one data key or one key, and says nothing about the others.
fn concerns_one(error: &Error) -> bool {
    match error {
        Error::Value(_) | Error::KeyNotAllowed(_) | Error::OutOfReach(..) => true,
        Error::Kms(error) => error.kind.is_refusal(),
        _ => false,
    }
}
