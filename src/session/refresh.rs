//! Data keys that are refreshed in the background: their provider is asked again before their time is up, while they go on
//! serving, so that in steady state no statement waits for KMS.

use std::rc::Rc;
use std::time::Instant;

use envelope_core::cache::CachedKey;
use envelope_core::request::OpeningGrant;

use crate::ask::{self, Pending};
use crate::error::Error;
use crate::session;

/// More at a time would only crowd the requests that statements wait for.
const MAX_PENDING: usize = 16;

/// The requests that are under way.
#[derive(Default)]
pub struct Refreshes(Vec<Refresh>);

/// One of them.
pub struct Refresh {
    cached: Rc<CachedKey>,
    asked: Instant,
    answer: Pending,
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

impl Refresh {
    /// Asks the provider of a data key again. `None`: not now.
    pub fn start(cached: &Rc<CachedKey>) -> Option<Self> {
        let (wrapped, context) = (cached.data_key().wrapped().clone(), cached.data_key().context().clone());
        let asked = Instant::now();
        match ask::start_in_background(session::refresh_request(wrapped, context, *cached.data_key().commitment())) {
            Ok(Some(answer)) => {
                cached.refresh_started();
                Some(Self { cached: Rc::clone(cached), asked, answer })
            }
            // Not for each value again.
            Ok(None) | Err(_) => {
                cached.refresh_failed(asked);
                None
            }
        }
    }

    /// Waits for the answer.
    pub fn wait(self) -> Answered {
        let Self { cached, asked, mut answer } = self;
        Answered { cached, asked, answer: session::opening_grant(ask::wait(&mut answer)) }
    }
}

impl Refreshes {
    /// Whether one more would not crowd out what statements wait for.
    pub fn has_room(&self) -> bool {
        self.0.len() < MAX_PENDING
    }

    /// Adds one.
    pub fn add(&mut self, refresh: Refresh) {
        self.0.push(refresh);
    }

    /// Takes all: they are looked at while nobody has the session, since that can wait.
    pub fn take_all(&mut self) -> Self {
        std::mem::take(self)
    }

    /// Puts those back that were not answered.
    pub fn put_back(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes one that has been answered.
    pub fn take_answered(&mut self) -> Option<Answered> {
        let mut answers = self.0.iter_mut().enumerate();
        let (at, answer) = answers.find_map(|(at, refresh)| Some((at, refresh.answer.try_take()?)))?;
        let Refresh { cached, asked, .. } = self.0.swap_remove(at);
        Some(Answered { cached, asked, answer: session::opening_grant(answer) })
    }

    /// Takes the request about a data key, to wait for its answer.
    pub fn take(&mut self, cached: &Rc<CachedKey>) -> Option<Refresh> {
        let at = self.0.iter().position(|refresh| Rc::ptr_eq(&refresh.cached, cached))?;
        Some(self.0.swap_remove(at))
    }

    /// Gives all up.
    pub fn cancel(&mut self) {
        self.0.clear();
    }
}
