//! Data keys that are refreshed in the background: their provider is asked again before their time is up, while they go on
//! serving, so that in steady state no statement waits for KMS (stale-while-revalidate, RFC 5861).

use std::rc::Rc;
use std::time::Duration;

use super::note::{Note, Refresh};
use super::{Asked, Policy, Surroundings};
use crate::cache::CachedKey;
use crate::request::{Calls, Terms};
use crate::request::{KmsError, Reply, Request};

/// More at a time would only crowd the requests that statements wait for.
const MAX_UNDER_WAY: usize = 16;

/// The requests that are under way.
pub struct Refreshes<P>(Vec<(Refresh, P)>);

impl<P> Default for Refreshes<P> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<P> Refreshes<P> {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives all up.
    pub(super) fn cancel(&mut self) {
        self.0.clear();
    }

    /// Takes those out for which `answer` has an answer.
    pub fn take_answered<A>(&mut self, mut answer: impl FnMut(&mut P) -> Option<A>) -> Vec<(Refresh, A)> {
        let mut answered = Vec::new();
        let mut at = 0;
        while at < self.0.len() {
            match answer(&mut self.0[at].1) {
                Some(reply) => answered.push((self.0.swap_remove(at).0, reply)),
                None => at += 1,
            }
        }
        answered
    }
}

impl<P> Policy<P> {
    /// Takes the refreshes out, to look at them while nobody has the policy.
    #[must_use]
    pub fn take_refreshes(&mut self) -> Refreshes<P> {
        std::mem::take(&mut self.refreshes)
    }

    /// Puts those back that were not answered. What was asked for before a flush is given up.
    pub fn put_back(&mut self, others: Refreshes<P>) {
        let flushes = self.heeded.map(|epochs| epochs.flushes);
        self.refreshes.0.extend(others.0.into_iter().filter(|(refresh, _)| refresh.asked.flushes() == flushes));
    }

    /// A refresh that was asked for by a note is under way.
    pub fn refresh_started(&mut self, refresh: Refresh, pending: P) {
        self.refreshes.0.push((refresh, pending));
        // Others may have flushed before it was started.
        let started = self.take_refreshes();
        self.put_back(started);
    }

    /// A refresh could not be started: not for each value again.
    pub fn refresh_not_started(&mut self, refresh: &Refresh) {
        refresh.cached.refresh_failed(refresh.asked.at);
    }

    /// Acts on what a refresh came to. Whoever needs a data key that was refused asks again, and is told. `None`: no answer of a
    /// provider came.
    pub fn refreshed(&mut self, refresh: Refresh, reply: Option<Result<Reply, KmsError>>, world: &impl Surroundings) {
        let Refresh { cached, asked, request } = refresh;
        self.heed(world);
        let Some(reply) = reply else {
            cached.refresh_failed(super::failed_at(asked, world));
            return;
        };
        if let Err(error) = &reply {
            self.heed_refusal(error, request.context(), world);
        }
        // It serves on until its time is up, if it still may.
        let _ = self.settle(&cached, asked, reply.map_err(Into::into), world);
    }

    /// Asks the provider of a data key again in the background, if there is room.
    pub(super) fn refresh(&mut self, cached: &Rc<CachedKey>, world: &impl Surroundings) {
        let noted = self.notes.iter().filter(|note| matches!(note, Note::Refresh(_))).count();
        if self.refreshes.0.len() + noted < MAX_UNDER_WAY {
            let asked = self.asked(world);
            cached.refresh_started();
            let request = refresh_request(cached, world);
            self.notes.push(Note::Refresh(Refresh { cached: Rc::clone(cached), asked, request }));
        }
    }

    /// Takes the refresh of a data key, to wait for its answer.
    pub(super) fn take_refresh(&mut self, cached: &Rc<CachedKey>) -> Option<(Request, Asked, P)> {
        let at = self.refreshes.0.iter().position(|(refresh, _)| Rc::ptr_eq(&refresh.cached, cached))?;
        let (Refresh { request, asked, .. }, pending) = self.refreshes.0.swap_remove(at);
        Some((request, asked, pending))
    }
}

/// The request for the plaintext of a data key that is in use: what another session has refreshed lately will do, and what is
/// stale will not.
fn refresh_request(cached: &CachedKey, world: &impl Surroundings) -> Request {
    let data_key = cached.data_key();
    Request::OpeningKey {
        wrapped: data_key.wrapped().clone(),
        context: data_key.context().clone(),
        commitment: Some(*data_key.commitment()),
        terms: Terms { fresh_for: world.ttl() / 2, stale_for: Duration::ZERO, calls: Calls::Needed },
    }
}
