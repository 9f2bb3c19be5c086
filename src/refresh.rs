//! Data keys that are refreshed in the background: their provider is asked again before their time is up, while they go on
//! serving, so that in steady state no statement waits for KMS.

use std::rc::Rc;
use std::time::Instant;

use envelope_core::cache::CachedKey;
use envelope_core::kms::Reply;
use envelope_core::kms::request::OpeningGrant;

use crate::error::Error;
use crate::kms::{self, Pending};
use crate::{session, settings};

/// More at a time would only crowd the requests that statements wait for.
const MAX_PENDING: usize = 16;

/// The requests that are under way.
#[derive(Default)]
pub struct Refreshes(Vec<Refresh>);

struct Refresh {
    cached: Rc<CachedKey>,
    asked: Instant,
    answer: Pending,
}

/// A refresh that a statement cannot go on without.
pub struct PendingRefresh(Refresh);

impl PendingRefresh {
    /// Waits for the answer.
    pub fn wait(self) -> Answered {
        let Refresh { cached, asked, mut answer } = self.0;
        Answered { cached, asked, answer: opening_grant(kms::wait(&mut answer)) }
    }
}

/// What a provider said about a data key, and when it was asked.
pub struct Answered {
    /// The data key.
    pub cached: Rc<CachedKey>,
    /// When its provider was asked.
    pub asked: Instant,
    /// The answer.
    pub answer: Result<OpeningGrant, Error>,
}

impl Refreshes {
    /// Asks the provider of a data key again.
    pub fn start(&mut self, cached: &Rc<CachedKey>) {
        if self.0.len() >= MAX_PENDING {
            return;
        }
        let asked = Instant::now();
        if let Ok(answer) = start_unwrap(cached) {
            cached.refresh_started();
            self.0.push(Refresh { cached: Rc::clone(cached), asked, answer });
        }
    }

    /// Takes one that has been answered.
    pub fn take_answered(&mut self) -> Option<Answered> {
        let mut answers = self.0.iter_mut().enumerate();
        let (at, answer) = answers.find_map(|(at, refresh)| Some((at, refresh.answer.try_take()?)))?;
        let Refresh { cached, asked, .. } = self.0.swap_remove(at);
        Some(Answered { cached, asked, answer: opening_grant(answer) })
    }

    /// Takes the request about a data key, to wait for its answer.
    pub fn take(&mut self, cached: &Rc<CachedKey>) -> Option<PendingRefresh> {
        let at = self.0.iter().position(|refresh| Rc::ptr_eq(&refresh.cached, cached))?;
        Some(PendingRefresh(self.0.swap_remove(at)))
    }

    /// Gives all up.
    pub fn cancel(&mut self) {
        self.0.clear();
    }
}

fn start_unwrap(cached: &CachedKey) -> Result<Pending, Error> {
    let (wrapped, context) = (cached.data_key().wrapped().clone(), cached.data_key().context().clone());
    // What another session has refreshed lately will do.
    kms::start(session::unwrap_request(wrapped, context, settings::limits().ttl / 2))
}

fn opening_grant(reply: Result<Reply, Error>) -> Result<OpeningGrant, Error> {
    match reply? {
        Reply::Opening(grant) => Ok(grant),
        Reply::Sealing(_) | Reply::Rewrapped(_) => unreachable!("the reply is to this request"),
    }
}
