//! Looking ahead in a cold scan: a function sees one value at a time, but the value of a scan is mostly on a page of the buffer
//! pool, and the values beside it are what comes next. From the second cold data key of a statement on, those of its page, and of the
//! pages behind it in the table, are asked for together with it. Nothing is decrypted; what may be asked, and how often, is as for any other request.

use std::cell::RefCell;
use std::rc::Rc;

use envelope_broker::protocol::MAX_REQUESTS;
use envelope_core::cache::CachedKey;
use envelope_core::format::{Envelope, Head};
use envelope_core::heap_page::{values_beside, values_on};
use envelope_core::policy::{Ask, StatementId, Step, Surroundings};
use envelope_core::request::Calls;

use super::surroundings::Here;
use super::unwrapping::Unwrapping;
use super::{asking, is_warm, with_policy};
use crate::error::Error;
use crate::pg::settings;
use crate::pg::shared_page::SharedPage;

/// Requests at a time, besides the one that the value at hand needs.
const MAX_AHEAD: usize = MAX_REQUESTS - 1;
/// Pages behind that of the value at hand.
const MAX_PAGES: u32 = 8;
/// Requests of the first page.
const FIRST_AHEAD: usize = 4;

/// What a statement has asked for ahead.
#[derive(Default)]
struct Progress {
    statement: StatementId,
    /// Data keys that values needed and that were not there.
    cold: u64,
    /// How many to ask for next.
    ahead: usize,
    /// What was asked for last, by the identities of the data keys.
    last: Vec<Box<[u8]>>,
}

thread_local! {
    static PROGRESS: RefCell<Progress> = RefCell::default();
}

/// The data key that opens a value; if it has to be asked for, those beside it are asked for with it, and kept.
///
/// # Errors
/// Whatever keeps it from being had.
pub fn open(head: &Head<'_>) -> Result<Rc<CachedKey>, Error> {
    let ask = match asking::first_step(|policy| policy.open(head, &Here))? {
        Step::Ask(ask) => asking::permitted(ask)?,
        step => return asking::drive(step),
    };
    let beside = beside(head);
    if beside.is_empty() {
        return Unwrapping::of_started(asking::start_permitted(ask)?).wait();
    }
    let asks = std::iter::once(ask).chain(beside).collect();
    let mut started = asking::start_all(asks)?.into_iter().map(Unwrapping::of_started);
    let cached = started.next().expect("what the value needs").wait()?;
    // Whoever needs one that failed asks again, and is told.
    started.for_each(|unwrapping| drop(unwrapping.wait()));
    Ok(cached)
}

/// What to ask for the data keys beside the one that a value needs, if the statement may be in a scan.
fn beside(head: &Head<'_>) -> Vec<Ask> {
    if !settings::look_ahead() || super::kms_calls_allowed() != Calls::Ahead {
        return Vec::new();
    }
    let wanted = PROGRESS.with_borrow_mut(|progress| progress.next());
    if wanted == 0 {
        return Vec::new();
    }
    let Some((page, at)) = SharedPage::of(head.as_bytes()) else { return Vec::new() };
    let mut found = Found { wanted, identities: vec![Box::from(head.dek_identity())], asks: Vec::new() };
    let own = page.copy();
    values_beside(&own, at).into_iter().for_each(|value| found.add(value));
    // Where few of its rows have data keys of their own, a scan comes to the pages behind soon.
    if found.asks.len() < wanted {
        page.for_each_behind(MAX_PAGES, |behind| {
            values_on(behind).into_iter().for_each(|value| found.add(value));
            found.asks.len() < wanted
        });
    }
    let Found { mut identities, asks, .. } = found;
    identities.remove(0);
    PROGRESS.with_borrow_mut(|progress| progress.last = identities);
    asks
}

/// What is to be asked for ahead.
struct Found {
    wanted: usize,
    /// The data keys, and the one that the value at hand needs.
    identities: Vec<Box<[u8]>>,
    asks: Vec<Ask>,
}

impl Found {
    /// A value that the scan may come to.
    fn add(&mut self, value: &[u8]) {
        if self.asks.len() == self.wanted {
            return;
        }
        let Ok(Envelope { head, .. }) = Envelope::parse(value) else { return };
        let is_known = self.identities.iter().any(|identity| **identity == *head.dek_identity());
        if is_known || is_warm(&head) {
            return;
        }
        self.identities.push(head.dek_identity().into());
        // Why one cannot be asked for is told to whoever decrypts with it.
        if let Ok(Step::Ask(ask)) = with_policy(|policy| policy.unwrap_ahead(&head, &Here)) {
            self.asks.extend(asking::permitted(ask));
        }
    }
}

impl Progress {
    /// A value needs a data key that is not there: how many to ask for besides.
    fn next(&mut self) -> usize {
        let statement = Here.statement();
        if self.statement != statement {
            *self = Self { statement, ahead: FIRST_AHEAD, ..Self::default() };
        }
        self.cold += 1;
        if self.cold == 1 {
            return 0;
        }
        // As the read-ahead of an operating system: twice as many as long as they are used. Index scans may need one row of a page.
        if !self.last.is_empty() {
            let used = with_policy(|policy| self.last.iter().filter(|identity| policy.was_used(identity)).count());
            self.ahead =
                if used * 2 >= self.last.len() { (self.ahead * 2).clamp(1, MAX_AHEAD) } else { self.ahead / 2 };
        }
        self.ahead
    }
}
