//! The encrypted values that stand on a page of a table beside one of them, found without knowing the table. A page is read as
//! bytes that anybody may have written: each length is checked before it is believed.
//!
//! ```text
//! page           24 bytes, of which u16 at 12: end of the line pointers, u16 at 16: end of the tuples
//! line pointer   u32: 15 bits offset, 2 bits state, 15 bits length      storage/itemid.h
//! tuple          u16 at 20: what is known of its transactions, u8 at 22: where its columns begin     access/htup_details.h
//! value          u32: length * 4, and then the value; both at a multiple of 4         varatt.h, neither short nor compressed
//! ```

use std::ops::Range;

use crate::format::Envelope;

const PAGE_HEADER_BYTES: usize = 24;
const LINE_POINTER_BYTES: usize = 4;
const TUPLE_HEADER_BYTES: usize = 23;
const VALUE_ALIGNMENT: usize = 4;
/// The state of a line pointer to a tuple.
const LP_NORMAL: u32 = 1;
/// The inserting transaction is known to have been committed.
const HEAP_XMIN_COMMITTED: u16 = 0x0100;
/// Nobody has deleted it.
const HEAP_XMAX_INVALID: u16 = 0x0800;
/// It was locked, and not deleted.
const HEAP_XMAX_LOCK_ONLY: u16 = 0x0080;

/// The encrypted values on a page beside the tuple that has the byte `at`: those of the tuples behind it first, then those before
/// it. None if it is no page of a table, or `at` is in no tuple. Values of tuples that are deleted, or not known to be committed,
/// and values that are compressed or in a TOAST table are left out.
#[must_use]
pub fn values_beside(page: &[u8], at: usize) -> Vec<&[u8]> {
    let tuples = tuples(page);
    let Some(own) = tuples.iter().position(|tuple| tuple.contains(&at)) else { return Vec::new() };
    let others = tuples[own + 1..].iter().chain(&tuples[..own]);
    others.map(|tuple| &page[tuple.clone()]).filter(|tuple| is_live(tuple)).flat_map(values).collect()
}

/// The encrypted values on a page, as for [`values_beside`].
#[must_use]
pub fn values_on(page: &[u8]) -> Vec<&[u8]> {
    tuples(page).into_iter().map(|tuple| &page[tuple]).filter(|tuple| is_live(tuple)).flat_map(values).collect()
}

/// Where the tuples are, in the order of their line pointers. All are within the page.
fn tuples(page: &[u8]) -> Vec<Range<usize>> {
    let field = |at: usize| page.get(at..at + 2).map(|bytes| usize::from(u16::from_ne_bytes([bytes[0], bytes[1]])));
    let (Some(line_pointers_end), Some(tuples_end)) = (field(12), field(16)) else { return Vec::new() };
    // A page of an index has something behind its tuples. The bits of a line pointer are where a C compiler puts them.
    if tuples_end != page.len() || cfg!(target_endian = "big") {
        return Vec::new();
    }
    let line_pointers = page.get(PAGE_HEADER_BYTES..line_pointers_end).unwrap_or_default();
    let tuple = |bytes: &[u8; LINE_POINTER_BYTES]| {
        let line_pointer = u32::from_le_bytes(*bytes);
        let (offset, bytes) = ((line_pointer & 0x7fff) as usize, (line_pointer >> 17) as usize);
        let is_inside = offset >= line_pointers_end && offset + bytes <= page.len() && bytes > TUPLE_HEADER_BYTES;
        (line_pointer >> 15 & 3 == LP_NORMAL && is_inside).then_some(offset..offset + bytes)
    };
    line_pointers.as_chunks().0.iter().filter_map(tuple).collect()
}

fn is_live(tuple: &[u8]) -> bool {
    let known = u16::from_ne_bytes([tuple[20], tuple[21]]);
    known & HEAP_XMIN_COMMITTED != 0 && known & (HEAP_XMAX_INVALID | HEAP_XMAX_LOCK_ONLY) != 0
}

/// What looks like an encrypted value, down to a well-formed head.
fn values(tuple: &[u8]) -> impl Iterator<Item = &[u8]> {
    let columns = tuple.get(usize::from(tuple[22])..).unwrap_or_default();
    (0..columns.len()).step_by(VALUE_ALIGNMENT).filter_map(|at| {
        let (length, rest) = columns[at..].split_first_chunk()?;
        let length = u32::from_le_bytes(*length);
        let bytes = ((length >> 2) as usize).checked_sub(VALUE_ALIGNMENT).filter(|_| length & 3 == 0)?;
        let value = rest.get(..bytes)?;
        Envelope::parse(value).is_ok().then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::context::EncryptionContext;
    use crate::format::{NONCE_BYTES, ValueType};
    use crate::keys::{Dek, Provider, WrappedKey};
    use crate::value::DataKey;

    const PAGE_BYTES: usize = 8_192;
    const LIVE: u16 = HEAP_XMIN_COMMITTED | HEAP_XMAX_INVALID;

    fn value(number: u8) -> Vec<u8> {
        let wrapped = WrappedKey { provider: Provider::Local, key_id: "local:a".into(), wrapped_dek: vec![number; 65] };
        let dek = Dek::take_from(&mut [number; 32]).unwrap();
        let data_key = DataKey::generated(dek, wrapped, &EncryptionContext::default(), &Rc::default()).unwrap();
        let mut value = vec![0; data_key.value_bytes(4)];
        data_key.seal(ValueType::Text, &[number; NONCE_BYTES], None, b"text", &mut value);
        value
    }

    /// A page as PostgreSQL makes it: an integer and an encrypted value in each row. Returns where the tuples are.
    fn page(rows: &[(u16, &[u8])]) -> (Vec<u8>, Vec<usize>) {
        let (mut page, mut places) = (vec![0; PAGE_BYTES], Vec::new());
        let mut upper = PAGE_BYTES;
        for (index, (known, value)) in rows.iter().enumerate() {
            let mut tuple = vec![0; 24];
            tuple[20..22].copy_from_slice(&known.to_ne_bytes());
            tuple[22] = 24;
            tuple.extend((index as u32).to_ne_bytes());
            tuple.extend(((value.len() as u32 + 4) << 2).to_le_bytes());
            tuple.extend(*value);
            upper = (upper - tuple.len()) & !7;
            page[upper..upper + tuple.len()].copy_from_slice(&tuple);
            let line_pointer = upper as u32 | LP_NORMAL << 15 | (tuple.len() as u32) << 17;
            page[24 + 4 * index..28 + 4 * index].copy_from_slice(&line_pointer.to_le_bytes());
            places.push(upper);
        }
        page[12..14].copy_from_slice(&(24 + 4 * rows.len() as u16).to_ne_bytes());
        page[14..16].copy_from_slice(&(upper as u16).to_ne_bytes());
        page[16..18].copy_from_slice(&(PAGE_BYTES as u16).to_ne_bytes());
        (page, places)
    }

    #[test]
    fn the_values_behind_come_first_and_then_those_before() {
        let made: Vec<_> = (1..=4).map(value).collect();
        let rows: Vec<_> = made.iter().map(|value| (LIVE, &value[..])).collect();
        let (page, places) = page(&rows);
        assert_eq!(values_beside(&page, places[1] + 40), [&made[2][..], &made[3], &made[0]]);
        assert!(values_beside(&page, 10).is_empty(), "what is in no tuple has nothing beside it");
        assert_eq!(values_on(&page), made.iter().map(|value| &value[..]).collect::<Vec<_>>());
    }

    #[test]
    fn only_rows_that_are_there_count() {
        let made: Vec<_> = (0..6).map(value).collect();
        let known =
            [LIVE, HEAP_XMAX_INVALID, HEAP_XMIN_COMMITTED, LIVE | 0x0200, HEAP_XMIN_COMMITTED | HEAP_XMAX_LOCK_ONLY, 0];
        let rows: Vec<_> = known.into_iter().zip(&made).map(|(known, value)| (known, &value[..])).collect();
        let (page, places) = page(&rows);
        assert_eq!(values_beside(&page, places[0]), [&made[3][..], &made[4]], "frozen, and locked");
        assert!(values_on(&page).ends_with(&[&made[3][..], &made[4]]));
    }

    #[test]
    fn what_is_no_encrypted_value_is_none() {
        let (own, good) = (value(1), value(2));
        let mut bad = value(3);
        bad[2] ^= 0xff;
        let (page, places) =
            page(&[(LIVE, &own), (LIVE, &bad), (LIVE, b"a text"), (LIVE, &good[..100]), (LIVE, &good)]);
        assert_eq!(values_beside(&page, places[0]), [&good[..]]);
    }

    /// Whatever the bytes are, nothing outside of the page is read and nothing panics.
    #[test]
    fn damaged_pages_are_survived() {
        let made: Vec<_> = (0..8).map(value).collect();
        let rows: Vec<_> = made.iter().map(|value| (LIVE, &value[..])).collect();
        let (whole, places) = page(&rows);
        let mut random = 1_u64;
        let mut next = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize
        };
        for _ in 0..20_000 {
            let mut page = whole.clone();
            for _ in 0..1 + next() % 8 {
                // Mostly where lengths and offsets are.
                let place = [next() % 64, places[next() % 8] + next() % 32, next() % PAGE_BYTES][next() % 3];
                page[place % PAGE_BYTES] = next() as u8;
            }
            let _ = values_beside(&page, places[next() % 8] + 30);
        }
        for bytes in [0, 1, 13, 17, 18, 24, 28, 100] {
            assert!(values_beside(&whole[..bytes], 50).is_empty());
        }
    }
}
