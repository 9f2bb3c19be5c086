//! Data keys that are refreshed in the background: their provider is asked again before their time is up, while they go on
//! serving, so that in steady state no statement waits for KMS (stale-while-revalidate, RFC 5861).

use super::note::Refresh;

/// The requests that are under way.
pub struct Refreshes<P>(pub(super) Vec<(Refresh, P)>);

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
