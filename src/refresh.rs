//! Data keys that are refreshed in the background: their provider is asked again before their time is up, while they go on
//! serving, so that in steady state no statement waits for KMS.

use std::rc::Rc;

use envelope_core::cache::CachedKey;
use envelope_core::kms::{KeyProvider, KmsError, UnwrappedKey};

use crate::bridge::{self, Pending};
use crate::error::Error;
use crate::settings;

/// More at a time would only crowd the requests that statements wait for.
const MAX_PENDING: usize = 16;

type PendingAnswer = Pending<Result<UnwrappedKey, KmsError>>;

/// The requests that are under way.
#[derive(Default)]
pub struct Refreshes(Vec<(Rc<CachedKey>, PendingAnswer)>);

impl Refreshes {
    /// Asks the provider of a data key again.
    pub fn start(&mut self, cached: &Rc<CachedKey>) {
        if self.0.len() >= MAX_PENDING {
            return;
        }
        if let Ok(pending) = start_unwrap(cached) {
            cached.refresh_started();
            self.0.push((Rc::clone(cached), pending));
        }
    }

    /// Takes one that has been answered.
    pub fn take_answered(&mut self) -> Option<(Rc<CachedKey>, Result<UnwrappedKey, Error>)> {
        let answered = self.0.iter_mut().enumerate().find_map(|(at, (_, pending))| Some((at, pending.try_take()?)));
        answered.map(|(at, answer)| (self.0.swap_remove(at).0, answer.and_then(|answer| Ok(answer?))))
    }

    /// Gives all up.
    pub fn cancel(&mut self) {
        self.0.clear();
    }
}

fn start_unwrap(cached: &CachedKey) -> Result<PendingAnswer, Error> {
    let (wrapped, context) = (cached.data_key().wrapped().clone(), cached.data_key().context().clone());
    bridge::start(settings::kms(), move |providers| async move { providers.unwrap_key(&wrapped, &context).await })
}
