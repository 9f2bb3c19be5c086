//! `env_splice`, and what `env_rotate` does with all data keys of a batch at once: no key, no KMS, nothing but bytes.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use envelope_core::error::ValueError;
use envelope_core::format::{Envelope, Head, WrappedKeys};
use pgrx::datum::Array;
use pgrx::pg_sys::Datum;

use crate::error::Error;
use crate::pg::function_call::{FunctionCall, sql_functions};
use crate::pg::result::{bigint_array_datum, bytea_array_datum, row_datum};
use crate::pg::varlena::Varlena;

sql_functions! {
    env_splice, pg_finfo_env_splice => splice;
    env_dek_counts_transition, pg_finfo_env_dek_counts_transition => count;
    env_dek_counts_final, pg_finfo_env_dek_counts_final => counts;
    env_is_of_any, pg_finfo_env_is_of_any => is_of_any;
    env_sift, pg_finfo_env_sift => sift;
    env_sifted, pg_finfo_env_sifted => sifted;
    env_splice_any, pg_finfo_env_splice_any => splice_any;
}

/// `env_splice(value bytea, donor bytea) -> bytea`
fn splice(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    const STRICT: &str = "sql/ declares the function STRICT";
    let value = Envelope::parse(call.bytes(0).expect(STRICT))?;
    let keys = call
        .varlena(1)
        .expect(STRICT)
        .with_head(|donor| value.head.is_of_same_data_key(donor).then(|| WrappedKeys::of(donor)).transpose())?;
    write_spliced(&value, &keys.ok_or(Error::OtherDataKey)?).map(Some)
}

fn write_spliced(value: &Envelope<'_>, keys: &WrappedKeys) -> Result<Datum, Error> {
    let bytes = value.rewrapped_bytes(keys);
    let mut spliced = Varlena::with_room(bytes)?;
    value.write_rewrapped(keys, spliced.as_mut_slice());
    Ok(spliced.finish(bytes))
}

/// Things that are found by the identity of a data key. Mostly it is the one that was found last: to compare is much faster
/// than to hash.
struct ByDataKey<T> {
    places: HashMap<Box<[u8]>, usize>,
    entries: Vec<(Box<[u8]>, T)>,
    last: Cell<usize>,
}

impl<T> Default for ByDataKey<T> {
    fn default() -> Self {
        Self { places: HashMap::new(), entries: Vec::new(), last: Cell::new(0) }
    }
}

impl<T> ByDataKey<T> {
    fn place(&self, identity: &[u8]) -> Option<usize> {
        let last = self.last.get();
        if self.entries.get(last).is_some_and(|(known, _)| **known == *identity) {
            return Some(last);
        }
        let place = self.places.get(identity).copied()?;
        self.last.set(place);
        Some(place)
    }

    fn get(&self, identity: &[u8]) -> Option<&T> {
        self.place(identity).map(|place| &self.entries[place].1)
    }

    fn insert(&mut self, identity: &[u8], entry: T) {
        self.places.insert(identity.into(), self.entries.len());
        self.entries.push((identity.into(), entry));
    }
}

impl ByDataKey<(Vec<u8>, i64)> {
    fn count(&mut self, head: &Head<'_>) -> Result<(), ValueError> {
        let place = match self.place(head.dek_identity()) {
            Some(place) => place,
            None => {
                head.encryption_context()?;
                head.wrapped_keys()?;
                self.insert(head.dek_identity(), (head.dek_stub(), 0));
                self.entries.len() - 1
            }
        };
        self.entries[place].1.1 += 1;
        Ok(())
    }
}

/// The state of the aggregate `count_deks`.
#[derive(Default)]
struct Counts {
    /// A stub of each data key, and how many values have it.
    data_keys: ByDataKey<(Vec<u8>, i64)>,
    /// What is no value.
    strange: i64,
}

/// `envelope_internal.dek_counts_transition(internal, value bytea) -> internal`
fn count(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let state = call.aggregate_state().unwrap_or_else(|| call.new_aggregate_state(Counts::default()));
    if let Some(value) = call.varlena(1) {
        state.with(|counts: &mut Counts| {
            let counted = value.with_head(|head| counts.data_keys.count(head));
            counts.strange += i64::from(counted.is_err());
            Ok(())
        })?;
    }
    Ok(Some(state.datum()))
}

/// `envelope_internal.dek_counts_final(internal) -> (stubs, counts, strange)`
fn counts(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let columns = |counts: &mut Counts| -> Result<_, Error> {
        let data_keys = &counts.data_keys.entries;
        Ok([
            bytea_array_datum(data_keys.iter().map(|(_, (stub, _))| &stub[..]))?,
            bigint_array_datum(data_keys.iter().map(|(_, (_, count))| *count)),
            Datum::from(counts.strange),
        ])
    };
    let columns = match call.aggregate_state() {
        Some(state) => state.with(columns)?,
        None => columns(&mut Counts::default())?,
    };
    Ok(Some(row_datum(call, &columns)))
}

/// What the arrays of a call say about each data key.
struct Splices {
    /// Where the arrays were: they are parameters of the statement, so they stay there as long as the call site does.
    arrays: [usize; 2],
    by_data_key: ByDataKey<Option<WrappedKeys>>,
}

impl Splices {
    fn of(call: &FunctionCall) -> Result<Rc<Self>, Error> {
        let place = |index: usize| match index < call.arguments() {
            true => call.datum(index).map_or(0, Datum::value),
            false => 0,
        };
        let arrays = [place(1), place(2)];
        call.keep(
            |known: &Self| known.arrays == arrays,
            || {
                let stubs = call.bytea_array(1);
                let donors = if call.arguments() > 2 { call.bytea_array(2) } else { None };
                let mut donors = donors.iter().flat_map(Array::iter).flatten();
                let mut by_data_key = ByDataKey::default();
                for stub in stubs.iter().flat_map(Array::iter).flatten() {
                    let stub = parse_head(stub)?;
                    let keys = match donors.next() {
                        None => None,
                        Some(donor) => {
                            let donor = parse_head(donor)?;
                            if !stub.is_of_same_data_key(&donor) {
                                return Err(Error::OtherDataKey);
                            }
                            Some(WrappedKeys::of(&donor)?)
                        }
                    };
                    by_data_key.insert(stub.dek_identity(), keys);
                }
                Ok(Self { arrays, by_data_key })
            },
        )
    }
}

fn parse_head(value: &[u8]) -> Result<Head<'_>, ValueError> {
    Envelope::parse(value).map(|envelope| envelope.head)
}

/// `envelope_internal.is_of_any(value bytea, stubs bytea[]) -> boolean`: false for what is no value.
fn is_of_any(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let splices = Splices::of(call)?;
    let value = call.varlena(0).expect("sql/ declares the function STRICT");
    let is_of_any = value.with_head(|head| Ok(splices.by_data_key.place(head.dek_identity()).is_some()));
    Ok(Some(Datum::from(is_of_any == Ok(true))))
}

/// What [`sift`] and [`note_sealed`] have met since the last [`sifted`].
#[derive(Default)]
struct Sifted {
    /// Values of one of the stubs.
    matched: i64,
    /// All others.
    others: Counts,
    /// A stub of each data key that matched values were sealed with.
    sealed: ByDataKey<Vec<u8>>,
}

thread_local! {
    static SIFTED: RefCell<Sifted> = RefCell::default();
}

/// `envelope_internal.sift(value bytea, stubs bytea[]) -> boolean`: as `is_of_any`, and counts, so that a batch needs no scan
/// beside its UPDATE.
fn sift(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let splices = Splices::of(call)?;
    let value = call.varlena(0).expect("sql/ declares the function STRICT");
    SIFTED.with_borrow_mut(|sifted| {
        let is_of_any = value.with_head(|head| {
            let is_of_any = splices.by_data_key.place(head.dek_identity()).is_some();
            if is_of_any {
                sifted.matched += 1
            } else {
                sifted.others.data_keys.count(head)?
            }
            Ok(is_of_any)
        });
        sifted.others.strange += i64::from(is_of_any.is_err());
        Ok(Some(Datum::from(is_of_any == Ok(true))))
    })
}

/// Notes the data key, by its identity, that a matched value was sealed with; without one nobody asks.
pub fn note_sealed(identity: &[u8], value: &[u8]) -> Result<(), Error> {
    SIFTED.with_borrow_mut(|Sifted { matched, sealed, .. }| {
        if *matched > 0 && sealed.place(identity).is_none() {
            sealed.insert(identity, parse_head(value)?.dek_stub());
        }
        Ok(())
    })
}

/// `envelope_internal.sifted() -> (stubs, counts, strange, matched, sealed)`: of the others, and of those that matched; and
/// begins anew.
fn sifted(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let Sifted { matched, others, sealed } = SIFTED.take();
    let columns = [
        bytea_array_datum(others.data_keys.entries.iter().map(|(_, (stub, _))| &stub[..]))?,
        bigint_array_datum(others.data_keys.entries.iter().map(|(_, (_, count))| *count)),
        Datum::from(others.strange),
        Datum::from(matched),
        bytea_array_datum(sealed.entries.iter().map(|(_, stub)| &stub[..]))?,
    ];
    Ok(Some(row_datum(call, &columns)))
}

/// `envelope_internal.splice_any(value bytea, stubs bytea[], donors bytea[]) -> bytea`: NULL for a value of none of the stubs.
fn splice_any(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let splices = Splices::of(call)?;
    let value = Envelope::parse(call.bytes(0).expect("sql/ declares the function STRICT"))?;
    let keys = splices.by_data_key.get(value.head.dek_identity()).and_then(Option::as_ref);
    keys.map(|keys| write_spliced(&value, keys)).transpose()
}
