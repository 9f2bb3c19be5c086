//! What the driver is to do besides: to log, to count and to start.

use std::rc::Rc;

use super::surroundings::Asked;
use crate::cache::CachedKey;
use crate::request::{KmsError, Operation, Request};

/// Something for the driver.
pub enum Note {
    /// A data key serves past its time, since its provider cannot be asked. To be logged.
    ServedStale {
        /// What could not be done, if it was this session that decided so: to be counted then. What the broker hands out it
        /// counts itself.
        decided: Option<Operation>,
        /// The key.
        key_id: String,
    },
    /// Data keys that the session had dropped to make room were needed again, so many so far. To be logged once in a while.
    CacheShort(u64),
    /// A provider has refused a key that had data keys in the cache. To be logged.
    Refused(KmsError),
    /// The provider of a data key in use is to be asked again in the background: [`super::Policy::refresh_started`].
    Refresh(Refresh),
}

/// A question that nobody waits for.
pub struct Refresh {
    pub(super) cached: Rc<CachedKey>,
    pub(super) asked: Asked,
    pub(super) request: Request,
}

impl Refresh {
    /// What to ask.
    #[must_use]
    pub fn request(&self) -> &Request {
        &self.request
    }
}
