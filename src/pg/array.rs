//! One-dimensional arrays of fixed-size or `jsonb` elements, read in place.

use std::marker::PhantomData;

use pgrx::callconv::{Arg, ArgAbi};
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::{FromDatum, pg_sys};

use super::jsonb::Jsonb;
use crate::error::{IotError, IotResult};

/// An element type whose place in an array is known.
pub trait Element<'call>: Sized {
    /// SQL name of the array type.
    const ARRAY: &'static str;
    /// Its oid.
    const OID: pg_sys::Oid;
    /// Alignment of elements.
    const ALIGNMENT: usize;

    /// The element at `start`, and its size.
    ///
    /// # Safety
    /// `start` is the aligned start of an element of an array of this type, which lives as long as the call.
    unsafe fn read(start: *const u8) -> (Self, usize);
}

impl Element<'_> for [u8; 16] {
    const ARRAY: &'static str = "uuid[]";
    const OID: pg_sys::Oid = pg_sys::UUIDOID;
    const ALIGNMENT: usize = 1;

    unsafe fn read(start: *const u8) -> (Self, usize) {
        // SAFETY: a uuid has sixteen bytes and no alignment.
        (unsafe { *start.cast::<Self>() }, 16)
    }
}

impl Element<'_> for i64 {
    const ARRAY: &'static str = "timestamptz[]";
    const OID: pg_sys::Oid = pg_sys::TIMESTAMPTZOID;
    const ALIGNMENT: usize = 8;

    unsafe fn read(start: *const u8) -> (Self, usize) {
        // SAFETY: a timestamptz is an aligned 64-bit integer.
        (unsafe { *start.cast::<Self>() }, 8)
    }
}

impl Element<'_> for f64 {
    const ARRAY: &'static str = "double precision[]";
    const OID: pg_sys::Oid = pg_sys::FLOAT8OID;
    const ALIGNMENT: usize = 8;

    unsafe fn read(start: *const u8) -> (Self, usize) {
        // SAFETY: a float8 is an aligned double.
        (unsafe { *start.cast::<Self>() }, 8)
    }
}

impl<'call> Element<'call> for Jsonb<'call> {
    const ARRAY: &'static str = "jsonb[]";
    const OID: pg_sys::Oid = pg_sys::JSONBOID;
    const ALIGNMENT: usize = 4;

    unsafe fn read(start: *const u8) -> (Self, usize) {
        // SAFETY: elements of arrays are stored plain, with a four-byte header (construct_md_array detoasts them).
        unsafe { (Self::from_plain(start.cast()), pgrx::varsize_any(start.cast())) }
    }
}

/// An array argument.
pub struct ArrayArgument<'call, T> {
    array: *const pg_sys::ArrayType,
    memory: PhantomData<&'call T>,
}

impl<'call, T: Element<'call>> ArrayArgument<'call, T> {
    /// Number of elements. `None` for an array of more than one dimension.
    pub fn length(&self) -> Option<usize> {
        // SAFETY: the header of a detoasted array; `ndim` lengths follow it.
        unsafe {
            match (*self.array).ndim {
                0 => Some(0),
                1 => usize::try_from(*self.array.add(1).cast::<i32>()).ok(),
                _ => None,
            }
        }
    }

    /// The length of the argument called `argument`, which must have one dimension, and the length of the one named by
    /// `like`.
    pub fn require_length(&self, argument: &str, like: Option<(&str, usize)>) -> IotResult<usize> {
        let unfit = |message| IotError::new(pgrx::PgSqlErrorCode::ERRCODE_ARRAY_ELEMENT_ERROR, message);
        let Some(length) = self.length() else {
            return Err(unfit(format!("argument \"{argument}\" has more than one dimension"))
                .hint("Pass a one-dimensional array."));
        };
        match like {
            Some((other, expected)) if expected != length => Err(unfit(format!(
                "argument \"{argument}\" has {length} elements, but {other} has {expected}"
            ))
            .hint("Pass arrays of equal length, one element for each reading.")),
            _ => Ok(length),
        }
    }

    /// The elements in order; `None` for NULL.
    pub fn iter(&self) -> Elements<'call, T> {
        let length = self.length().unwrap_or(0);
        // SAFETY: the layout of arrays (utils/array.h): header, lengths, lower bounds, then the bitmap of non-NULL elements
        // where `dataoffset` is not zero, then the elements, aligned to eight bytes.
        unsafe {
            let start = self.array.cast::<u8>();
            let bounds = size_of::<pg_sys::ArrayType>() + 2 * size_of::<i32>();
            let has_nulls = (*self.array).dataoffset != 0;
            let data = if has_nulls { (*self.array).dataoffset as usize } else { bounds.next_multiple_of(8) };
            Elements {
                left: length,
                next: start.add(data),
                bitmap: if has_nulls { start.add(bounds) } else { std::ptr::null() },
                number: 0,
                memory: PhantomData,
            }
        }
    }
}

/// Iterator over the elements of an [`ArrayArgument`].
pub struct Elements<'call, T> {
    left: usize,
    next: *const u8,
    bitmap: *const u8,
    number: usize,
    memory: PhantomData<&'call T>,
}

impl<'call, T: Element<'call>> Iterator for Elements<'call, T> {
    type Item = Option<T>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let number = self.number;
        self.number += 1;
        // SAFETY: the bitmap has a bit for each element; a NULL takes no room among the elements; `left` bounds the walk.
        unsafe {
            if !self.bitmap.is_null() && *self.bitmap.add(number / 8) & (1 << (number % 8)) == 0 {
                return Some(None);
            }
            let start = self.next.add(self.next.align_offset(T::ALIGNMENT));
            let (element, size) = T::read(start);
            self.next = start.add(size);
            Some(Some(element))
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<'call, T: Element<'call>> FromDatum for ArrayArgument<'call, T> {
    // SAFETY: the trait's contract is enough: a datum of the array's type.
    unsafe fn from_polymorphic_datum(
        datum: pg_sys::Datum,
        is_null: bool,
        _type: pg_sys::Oid,
    ) -> Option<Self> {
        if is_null {
            return None;
        }
        // SAFETY: the caller passes an array datum; detoasting copies what is compressed or out of line.
        let array: *const pg_sys::ArrayType =
            unsafe { pg_sys::pg_detoast_datum(datum.cast_mut_ptr()) }.cast();
        // SAFETY: the header is there.
        if unsafe { (*array).elemtype } != T::OID {
            IotError::new(
                pgrx::PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                format!("array argument is not of type {}", T::ARRAY),
            )
            .raise();
        }
        Some(Self { array, memory: PhantomData })
    }
}

// SAFETY: unboxes through `FromDatum` above, which copies what does not already live as long as the call.
unsafe impl<'call, T: Element<'call>> ArgAbi<'call> for ArrayArgument<'call, T> {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'call>) -> Self {
        // SAFETY: the function is declared with an argument of this type.
        match unsafe { arg.unbox_arg_using_from_datum() } {
            Some(value) => value,
            None => IotError::null_argument("array").raise(),
        }
    }
}

// SAFETY: names the SQL type whose datum the conversion above handles.
unsafe impl<'call, T: Element<'call>> SqlTranslatable for ArrayArgument<'call, T> {
    const TYPE_IDENT: &'static str = T::ARRAY;
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal(T::ARRAY));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> =
        Ok(ReturnsRef::One(SqlMappingRef::literal(T::ARRAY)));
}
