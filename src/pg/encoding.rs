//! Between the database's encoding and UTF-8, which is what encrypted text is in. PostgreSQL's own conversion functions
//! quote the character that they cannot convert; these errors do not, because it is plaintext.

use std::borrow::Cow;
use std::ffi::{CStr, CString};

use pgrx::pg_sys;

use crate::error::Error;

const UTF8: i32 = pg_sys::pg_enc::PG_UTF8 as i32;
const SQL_ASCII: i32 = pg_sys::pg_enc::PG_SQL_ASCII as i32;
/// PostgreSQL's MAX_CONVERSION_GROWTH (mb/pg_wchar.h).
const MAX_GROWTH: usize = 4;
/// Large texts are converted in pieces of this size.
const PIECE_BYTES: usize = 1 << 20;
/// A text for which it pays to ask what the processor has.
#[cfg(target_arch = "x86_64")]
const LONG_BYTES: usize = 4 << 10;

/// Text in the database's encoding, as UTF-8.
///
/// # Errors
/// [`Error::NotInEncoding`] where the database does not say its encoding (SQL_ASCII) and it is not UTF-8, and
/// [`Error::Untranslatable`].
pub fn to_utf8(text: &[u8]) -> Result<Cow<'_, [u8]>, Error> {
    match database_encoding() {
        UTF8 => Ok(Cow::Borrowed(text)),
        _ if is_ascii_text(text) => Ok(Cow::Borrowed(text)),
        SQL_ASCII => match std::str::from_utf8(text) {
            Ok(_) => Ok(Cow::Borrowed(text)),
            Err(_) => Err(Error::NotInEncoding("UTF8".into())),
        },
        encoding => convert(text, encoding, UTF8).map(Cow::Owned),
    }
}

/// UTF-8 text in the database's encoding; the same bytes where that is UTF-8.
///
/// # Errors
/// [`Error::NotInEncoding`] for what no text is: other bytes than UTF-8, or a zero byte; [`Error::Untranslatable`].
pub fn from_utf8(text: &[u8]) -> Result<Cow<'_, [u8]>, Error> {
    if is_ascii_text(text) {
        return Ok(Cow::Borrowed(text));
    }
    if std::str::from_utf8(text).is_err() || text.contains(&0) {
        return Err(Error::NotInEncoding("UTF8".into()));
    }
    match database_encoding() {
        UTF8 | SQL_ASCII => Ok(Cow::Borrowed(text)),
        encoding => convert(text, UTF8, encoding).map(Cow::Owned),
    }
}

/// Text of PostgreSQL's, such as a name of the catalog, for an error.
pub fn database_text(text: &[u8]) -> String {
    match to_utf8(text) {
        Ok(text) => String::from_utf8_lossy(&text).into_owned(),
        Err(_) => String::from_utf8_lossy(text).into_owned(),
    }
}

/// Text for an error, in the database's encoding. What the encoding does not have, and whatever could forge or hide a line of
/// the log, becomes a question mark.
pub fn printable(text: &str) -> CString {
    // SAFETY: reads a variable of the backend. Conversions are in the catalog, which only a transaction can read.
    let can_convert = database_encoding() == UTF8 || unsafe { pg_sys::IsTransactionState() };
    let mut printed = Vec::with_capacity(text.len());
    let mut character = [0; 4];
    for char in text.chars() {
        let utf8 = char.encode_utf8(&mut character).as_bytes();
        let is_shown = !is_control(char) && (char.is_ascii() || can_convert);
        match is_shown.then(|| from_utf8(utf8)) {
            Some(Ok(converted)) => printed.extend_from_slice(&converted),
            _ => printed.push(b'?'),
        }
    }
    CString::new(printed).expect("a zero byte is a control character")
}

/// Control characters, separators of lines, and marks that change the direction of text (Unicode, categories Cc, Zl, Zp; UAX #9).
fn is_control(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Whether it is ASCII without a zero byte: the same bytes in every encoding that a database can have.
fn is_ascii_text(text: &[u8]) -> bool {
    #[cfg(target_arch = "x86_64")]
    if text.len() >= LONG_BYTES && std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { is_ascii_text_avx2(text) };
    }
    is_ascii_text_inlined(text)
}

/// With vectors of twice the bytes: so much of the time that a large text takes is what goes over it once more.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn is_ascii_text_avx2(text: &[u8]) -> bool {
    is_ascii_text_inlined(text)
}

/// Pieces, so that other text is found out soon, without a branch inside, so that the compiler makes vectors of them.
#[inline(always)]
fn is_ascii_text_inlined(text: &[u8]) -> bool {
    text.chunks(256).all(|piece| piece.iter().fold(true, |is_ascii, byte| is_ascii & (1..0x80).contains(byte)))
}

fn database_encoding() -> i32 {
    unsafe extern "C" {
        // pgrx's own declaration catches errors by sigsetjmp. Here is none to catch, and this is called for each value.
        safe fn GetDatabaseEncoding() -> std::ffi::c_int;
    }
    GetDatabaseEncoding()
}

fn convert(text: &[u8], from: i32, to: i32) -> Result<Vec<u8>, Error> {
    // SAFETY: looks the conversion up in the catalog; the encodings are valid.
    let conversion = unsafe { pg_sys::FindDefaultConversionProc(from, to) };
    if conversion == pg_sys::InvalidOid {
        return Err(untranslatable());
    }
    let mut rest = text;
    let mut converted = Vec::new();
    let reserve = |converted: &mut Vec<u8>, bytes| converted.try_reserve(bytes).map_err(|_| Error::OutOfMemory(bytes));
    reserve(&mut converted, text.len())?;
    let mut piece = Vec::new();
    reserve(&mut piece, text.len().min(PIECE_BYTES) * MAX_GROWTH + 1)?;
    piece.resize(text.len().min(PIECE_BYTES) * MAX_GROWTH + 1, 0);
    while !rest.is_empty() {
        let source = &rest[..rest.len().min(PIECE_BYTES)];
        // SAFETY: the function reads `source`, and writes to `piece` at most its length, a final zero byte included. It
        // stops in front of a character that is cut off or that it cannot convert, and says how far it came.
        let consumed = unsafe {
            pg_sys::pg_do_encoding_conversion_buf(
                conversion,
                from,
                to,
                source.as_ptr().cast_mut(),
                source.len() as i32,
                piece.as_mut_ptr(),
                piece.len() as i32,
                true,
            )
        };
        let consumed = usize::try_from(consumed).unwrap_or_default();
        let output = CStr::from_bytes_until_nul(&piece).map_err(|_| untranslatable())?;
        if consumed == 0 {
            return Err(untranslatable());
        }
        reserve(&mut converted, output.count_bytes())?;
        converted.extend(output.to_bytes());
        rest = &rest[consumed..];
    }
    Ok(converted)
}

fn untranslatable() -> Error {
    // SAFETY: returns a static C string.
    let name = unsafe { CStr::from_ptr(pg_sys::GetDatabaseEncodingName()) };
    Error::Untranslatable(name.to_string_lossy().into_owned())
}
