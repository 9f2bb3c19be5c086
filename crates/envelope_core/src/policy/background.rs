//! Asking the provider of a data key again in the background.

use std::rc::Rc;
use std::time::Duration;

use super::note::{Note, Refresh};
use super::refresh::Refreshes;
use super::{Asked, Policy, Surroundings};
use crate::cache::CachedKey;
use crate::request::{Calls, KmsError, Reply, Request, Terms};

/// More at a time would only crowd the requests that statements wait for.
const MAX_UNDER_WAY: usize = 16;

impl<P> Policy<P> {
    /// Takes the refreshes out, to look at them while nobody has the policy.
    #[must_use]
    pub fn take_refreshes(&mut self) -> Refreshes<P> {
        std::mem::take(&mut self.refreshes)
    }

    /// Puts those back that were not answered. What was asked for before a flush is given up.
    pub fn put_back(&mut self, others: Refreshes<P>) {
        let flushes = self.seen_epochs.map(|epochs| epochs.flushes);
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
    pub fn refresh_not_started(&mut self, refresh: &Refresh, world: &impl Surroundings) {
        self.budget.settle(refresh.asked.statement, 0, world);
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
        let reply = self.take_reply(reply, asked, request.context(), world);
        // It serves on until its time is up, if it still may.
        let _ = self.settle(&cached, asked, reply, world);
    }

    /// Asks the provider of a data key again in the background, if there is room, and the statement may cause the call.
    pub(super) fn refresh(&mut self, cached: &Rc<CachedKey>, world: &impl Surroundings) {
        let noted = self.notes.iter().filter(|note| matches!(note, Note::Refresh(_))).count();
        if self.refreshes.0.len() + noted < MAX_UNDER_WAY && self.budget.check(world).is_ok() {
            let asked = self.asked(world);
            self.budget.count(world);
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
        wrapped: data_key.wrapped(),
        context: data_key.context().clone(),
        commitment: Some(*data_key.commitment()),
        terms: Terms {
            fresh_for: cached.ttl(world.ttl()) / 2,
            stale_for: Duration::ZERO,
            calls: Calls::Needed,
            is_ahead: false,
        },
    }
}
