//! Datums of variable-length types: read as slices without copies, and written.

use std::ffi::{c_int, c_void};
use std::marker::PhantomData;

use pgrx::pg_sys::{self, Datum};

use crate::error::Error;

/// PostgreSQL's MaxAllocSize (utils/memutils.h): no value is larger.
const MAX_ALLOC_BYTES: usize = 0x3fff_ffff;

unsafe extern "C" {
    /// pgrx's own declaration catches errors by sigsetjmp. With a valid size and MCXT_ALLOC_NO_OOM this one raises none, and
    /// it is called for each value.
    fn palloc_extended(size: usize, flags: c_int) -> *mut c_void;
}
const MCXT_ALLOC_NO_OOM: c_int = pg_sys::MCXT_ALLOC_NO_OOM as c_int;

/// A live value of a variable-length type that is not NULL: plain, with a short header, compressed, or in a TOAST table.
#[derive(Clone, Copy)]
pub struct VarlenaDatum<'a> {
    varlena: *mut pg_sys::varlena,
    lifetime: PhantomData<&'a [u8]>,
}

impl<'a> VarlenaDatum<'a> {
    /// # Safety
    /// `datum` is of a variable-length type (typlen -1), and neither it nor what is detoasted from it in the current memory
    /// context goes before `'a` ends.
    pub unsafe fn new(datum: Datum) -> Self {
        Self { varlena: datum.cast_mut_ptr(), lifetime: PhantomData }
    }

    /// The value itself if it is neither compressed nor in a TOAST table. PostgreSQL's functions check that too, but a call
    /// into PostgreSQL that can fail has to be guarded by sigsetjmp.
    pub fn inline_bytes(self) -> Option<&'a [u8]> {
        let varlena = self.varlena.cast_const();
        // SAFETY: reads the header of a live value; what is not toasted has its data behind the header.
        unsafe {
            let is_toasted = pgrx::varlena::varatt_is_4b_c(varlena) || pgrx::varlena::varatt_is_1b_e(varlena);
            (!is_toasted).then(|| data(varlena))
        }
    }

    /// The bytes.
    pub fn bytes(self) -> &'a [u8] {
        self.inline_bytes().unwrap_or_else(|| {
            // SAFETY: a live value; its detoasted copy is in the current memory context, which `new` speaks of.
            unsafe { data(pg_sys::pg_detoast_datum_packed(self.varlena)) }
        })
    }

    /// Whether it is in a TOAST table.
    pub fn is_out_of_line(self) -> bool {
        // SAFETY: reads the header of a live value.
        unsafe { pgrx::varlena::varatt_is_1b_e(self.varlena.cast_const()) }
    }

    /// The first bytes, as many as there are; the rest is not read from a TOAST table.
    pub fn first_bytes(self, bytes: usize) -> &'a [u8] {
        let count = i32::try_from(bytes).unwrap_or(i32::MAX);
        // SAFETY: as in `bytes`. PostgreSQL cuts the slice at the value's end.
        unsafe { data(pg_sys::pg_detoast_datum_slice(self.varlena, 0, count)) }
    }

    /// How many bytes it has by its header. One that is damaged may have fewer.
    pub fn claimed_bytes(self) -> usize {
        // SAFETY: reads the header of a live value.
        unsafe { pg_sys::toast_raw_datum_size(Datum::from(self.varlena)) }.saturating_sub(pg_sys::VARHDRSZ)
    }

    /// Whether two values are the same, bit for bit. Only values of the same size that are stored in different places are
    /// detoasted to find out.
    pub fn is_same(self, other: VarlenaDatum<'_>) -> bool {
        self.image() == other.image()
            || (self.claimed_bytes() == other.claimed_bytes() && self.bytes() == other.bytes())
    }

    /// Its bytes as they are stored, header included; those of the pointer if it is in a TOAST table.
    fn image(self) -> &'a [u8] {
        // SAFETY: the size is that of the live value, or of the pointer.
        unsafe { std::slice::from_raw_parts(self.varlena.cast::<u8>(), pgrx::varlena::varsize_any(self.varlena)) }
    }
}

/// # Safety
/// `varlena` is a live, detoasted value (its header may be short), and stays so for `'a`.
unsafe fn data<'a>(varlena: *const pg_sys::varlena) -> &'a [u8] {
    // SAFETY: the size and the data are those of one live value.
    unsafe {
        std::slice::from_raw_parts(
            pgrx::varlena::vardata_any(varlena).cast::<u8>(),
            pgrx::varlena::varsize_any_exhdr(varlena),
        )
    }
}

/// A text or bytea result that is being written.
pub struct Varlena {
    pointer: *mut pg_sys::varlena,
    capacity: usize,
}

impl Varlena {
    /// Room for `bytes` bytes, which the caller writes.
    ///
    /// # Errors
    /// [`Error::TooLarge`] above PostgreSQL's limit, [`Error::OutOfMemory`].
    pub fn with_room(bytes: usize) -> Result<Self, Error> {
        let total = bytes.saturating_add(pg_sys::VARHDRSZ);
        if total > MAX_ALLOC_BYTES {
            return Err(Error::TooLarge(bytes));
        }
        // SAFETY: the size is valid, which is all that it asks for.
        let pointer: *mut pg_sys::varlena = unsafe { palloc_extended(total, MCXT_ALLOC_NO_OOM).cast() };
        if pointer.is_null() { Err(Error::OutOfMemory(total)) } else { Ok(Self { pointer, capacity: bytes }) }
    }

    /// A copy of some bytes.
    ///
    /// # Errors
    /// As [`Self::with_room`].
    pub fn copy_of(bytes: &[u8]) -> Result<Datum, Error> {
        let mut copy = Self::with_room(bytes.len())?;
        copy.as_mut_slice().copy_from_slice(bytes);
        Ok(copy.finish(bytes.len()))
    }

    /// The room.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: `with_room` allocated a header and this many bytes; nobody else has the pointer. What palloc returned is
        // memory of a foreign allocator, so its bytes have some value.
        unsafe {
            let data = self.pointer.cast::<u8>().add(pg_sys::VARHDRSZ);
            std::slice::from_raw_parts_mut(data, self.capacity)
        }
    }

    /// The result, of which `bytes` bytes were written.
    pub fn finish(self, bytes: usize) -> Datum {
        assert!(bytes <= self.capacity);
        // SAFETY: the header is inside the allocation, and the length fits it since `with_room` checked the capacity.
        unsafe { pgrx::varlena::set_varsize_4b(self.pointer, (bytes + pg_sys::VARHDRSZ) as i32) };
        Datum::from(self.pointer)
    }
}
