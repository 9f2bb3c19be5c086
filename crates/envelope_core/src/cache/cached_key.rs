//! A data key, and whether its provider consents to its use: for how long since it last said so, and what is done when it
//! cannot be asked.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::Limits;
use crate::keys::named::Use;
use crate::value::DataKey;

/// After a failure the provider is not asked about the same data key for so long.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// An outage that was seen longer ago than this may be over: whoever needs the data key then asks, and waits.
const OUTAGE_MEMORY: Duration = Duration::from_secs(60);
/// From this part of its time on a data key is refreshed while it is in use, in 256ths; spread, so that not all servers, nor all
/// sessions of one, ask at once. The later, the fewer calls; what is left is for an attempt that fails.
const REFRESH_FROM: u32 = 218;
const REFRESH_SPREAD: u32 = 18;

/// Who was found to have the right on a key, and as of when.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Authorisation {
    /// The role's identifier.
    pub role: u32,
    /// Counts changes of the rights.
    pub changes: u64,
    /// Only named keys were to be used.
    pub named_only: bool,
    /// Each use is to be counted. What was found holds for uses that are not, too.
    pub audited: bool,
}

/// A data key in a cache.
pub struct CachedKey {
    data_key: DataKey,
    /// When the provider was asked the last time that it handed it out.
    confirmed: Cell<Instant>,
    /// When it was last tried in vain since then.
    failed: Cell<Option<Instant>>,
    /// And whether that was for want of reaching it.
    outage: Cell<bool>,
    /// It is being asked now.
    refreshing: Cell<bool>,
    /// In 65,536ths of its time, so that few of many servers have the same.
    refresh_from: u32,
    /// The time that its key has of its own, in whole seconds; 0: none.
    own_ttl: Cell<u32>,
    uses: Cell<u64>,
    encrypts: Cell<Option<Authorisation>>,
    decrypts: Cell<Option<Authorisation>>,
    /// The list of allowed keys that its key was found in, by the list's generation.
    allowed_by: Cell<Option<u64>>,
}

/// Whether a data key may be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Consent {
    /// It may.
    Fresh,
    /// It may, and now is a good time to ask the provider in the background.
    RefreshDue,
    /// Its time is up, but its provider is known to be out of reach: it may for some more time.
    Stale,
    /// As [`Consent::Stale`], and now is a good time to ask the provider in the background.
    StaleRefreshDue,
    /// Its time is up: only if the provider says so, or cannot be asked and [`CachedKey::may_go_stale`].
    Expired,
}

impl CachedKey {
    /// A data key that its provider has just handed out. `spread`, a random byte, spreads the refreshes of many sessions.
    #[must_use]
    pub fn new(data_key: DataKey, now: Instant, spread: u8) -> Self {
        Self {
            data_key,
            confirmed: Cell::new(now),
            failed: Cell::new(None),
            outage: Cell::new(false),
            refreshing: Cell::new(false),
            refresh_from: REFRESH_FROM * 256 + u32::from(spread) * REFRESH_SPREAD,
            own_ttl: Cell::new(0),
            uses: Cell::new(0),
            encrypts: Cell::new(None),
            decrypts: Cell::new(None),
            allowed_by: Cell::new(None),
        }
    }

    /// The data key.
    #[must_use]
    pub fn data_key(&self) -> &DataKey {
        &self.data_key
    }

    /// For how many values it was taken.
    #[must_use]
    pub fn uses(&self) -> u64 {
        self.uses.get()
    }

    /// Who was last found to have the right to use it so.
    #[must_use]
    pub fn authorisation(&self, what: Use) -> Option<Authorisation> {
        self.authorised(what).get()
    }

    /// Somebody has the right to use it so.
    pub fn authorise(&self, what: Use, authorisation: Authorisation) {
        self.authorised(what).set(Some(authorisation));
    }

    fn authorised(&self, what: Use) -> &Cell<Option<Authorisation>> {
        match what {
            Use::Encrypt => &self.encrypts,
            Use::Decrypt => &self.decrypts,
        }
    }

    /// It is taken for a value.
    pub fn count_use(&self) {
        self.uses.set(self.uses.get() + 1);
    }

    /// Whether its key was found in the list of allowed keys of this generation.
    #[must_use]
    pub fn is_allowed_by(&self, generation: u64) -> bool {
        self.allowed_by.get() == Some(generation)
    }

    /// Its key was found in the list of allowed keys of this generation.
    pub fn allowed_by(&self, generation: u64) {
        self.allowed_by.set(Some(generation));
    }

    /// Its key has this time of its own, in whole seconds; `None`: that of all keys. Whether it was another one before.
    pub fn set_own_ttl(&self, own_ttl: Option<Duration>) -> bool {
        let own_ttl = own_ttl.map_or(0, |ttl| u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX));
        self.own_ttl.replace(own_ttl) != own_ttl
    }

    /// How long it may be used before its provider is asked again: `ttl`, unless its key has a time of its own.
    #[inline]
    #[must_use]
    pub fn ttl(&self, ttl: Duration) -> Duration {
        match self.own_ttl.get() {
            0 => ttl,
            own => Duration::from_secs(own.into()),
        }
    }

    /// Whether it is in the first half of its time, where [`Self::consent`] is [`Consent::Fresh`]: mostly so, and soon known.
    #[must_use]
    pub fn is_young(&self, now: Instant, ttl: Duration) -> bool {
        // Whole seconds: to divide a Duration takes longer than all the rest.
        self.age(now).as_secs() < self.ttl(ttl).as_secs() / 2
    }

    /// Whether it may be used.
    #[must_use]
    pub fn consent(&self, now: Instant, limits: &Limits) -> Consent {
        let (age, ttl) = (self.age(now), self.ttl(limits.ttl));
        let since_failure = self.failed.get().map(|failed| now.saturating_duration_since(failed));
        let may_ask = !self.refreshing.get() && since_failure.is_none_or(|since| since >= RETRY_PAUSE);
        if age < ttl {
            let is_due = age >= ttl * self.refresh_from / 65_536 && may_ask;
            return if is_due { Consent::RefreshDue } else { Consent::Fresh };
        }
        let outage_is_known = self.outage.get() && since_failure.is_some_and(|since| since < OUTAGE_MEMORY);
        match outage_is_known && self.may_go_stale(now, limits) {
            true if may_ask => Consent::StaleRefreshDue,
            true => Consent::Stale,
            false => Consent::Expired,
        }
    }

    /// Whether it may still be used if its provider cannot be asked.
    #[must_use]
    pub fn may_go_stale(&self, now: Instant, limits: &Limits) -> bool {
        self.age(now) < self.ttl(limits.ttl).saturating_add(limits.stale_if_unreachable)
    }

    /// Whether it can be of no more use whatever the provider says: it has to hand it out again.
    pub(super) fn is_useless(&self, now: Instant, limits: &Limits) -> bool {
        self.age(now) >= self.ttl(limits.ttl) && !self.may_go_stale(now, limits)
    }

    /// When it comes to be of no more use, unless its provider hands it out again; `None`: not in this world.
    pub(crate) fn useless_at(&self, limits: &Limits) -> Option<Instant> {
        self.confirmed.get().checked_add(self.ttl(limits.ttl).saturating_add(limits.stale_if_unreachable))
    }

    /// The provider is being asked.
    pub fn refresh_started(&self) {
        self.refreshing.set(true);
    }

    /// The provider has handed it out again. It was asked at `asked`, which is what its consent counts from.
    pub fn confirmed(&self, asked: Instant) {
        self.confirmed.set(asked);
        self.failed.set(None);
        self.outage.set(false);
        self.refreshing.set(false);
    }

    /// The provider could not be asked.
    pub fn out_of_reach(&self, now: Instant) {
        self.refresh_failed(now);
        self.outage.set(true);
    }

    /// The provider was asked, and gave no usable answer: whoever needs the data key when its time is up finds out.
    pub fn refresh_failed(&self, now: Instant) {
        self.failed.set(Some(now));
        self.outage.set(false);
        self.refreshing.set(false);
    }

    /// How long ago the provider was asked the last time that it handed it out.
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.confirmed.get())
    }
}
