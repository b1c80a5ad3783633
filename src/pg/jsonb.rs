//! Binary `jsonb`, read in place: no text round trip where PostgreSQL's own operators serve.

use std::ffi::{CStr, CString};
use std::marker::PhantomData;

use iot_core::jsonb::{Document, Value as Root};
use pgrx::callconv::{Arg, ArgAbi};
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::{
    FromDatum, IntoDatum, PgSqlErrorCode, direct_function_call, direct_function_call_as_datum, pg_sys,
    varsize_any,
};
use serde_json::Value;

use crate::error::{IotError, IotResult};

/// A `jsonb` value in the memory of the call that received it.
#[derive(Clone, Copy)]
pub struct Jsonb<'call> {
    varlena: *mut pg_sys::varlena,
    memory: PhantomData<&'call pg_sys::varlena>,
}

/// `{}` in binary form: the length header, and the header of an object without members.
static EMPTY_OBJECT: [u32; 2] = [if cfg!(target_endian = "little") { 8 << 2 } else { 8 }, 0x2000_0000];

impl Jsonb<'static> {
    /// The empty object.
    pub fn empty_object() -> Self {
        Self { varlena: EMPTY_OBJECT.as_ptr().cast_mut().cast(), memory: PhantomData }
    }
}

impl Jsonb<'_> {
    /// The value at `varlena`.
    ///
    /// # Safety
    /// It is a plain `jsonb` with a four-byte header that lives as long as the result.
    pub(super) unsafe fn from_plain(varlena: *const pg_sys::varlena) -> Self {
        Self { varlena: varlena.cast_mut(), memory: PhantomData }
    }

    /// The binary image with its length header: equal images are equal values, so it can key a cache.
    pub fn image(&self) -> &[u8] {
        // SAFETY: `varlena` is detoasted and lives as long as `self` borrows it; its header holds its size.
        unsafe { std::slice::from_raw_parts(self.varlena.cast::<u8>(), varsize_any(self.varlena)) }
    }

    /// The value as an argument or a column of PostgreSQL's.
    pub(super) fn as_datum(&self) -> pg_sys::Datum {
        self.varlena.into()
    }

    /// The value as PostgreSQL prints it.
    pub fn to_text(self) -> String {
        // SAFETY: `jsonb_out` returns a NUL-terminated string in the current memory context.
        let text: Option<&CStr> =
            unsafe { direct_function_call(pg_sys::jsonb_out, &[Some(self.varlena.into())]) };
        text.unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Whether it is `{}`: a root container with no members.
    pub fn is_empty_object(&self) -> bool {
        const IS_OBJECT: u32 = 0x2000_0000;
        self.image()
            .last_chunk::<4>()
            .is_some_and(|header| self.image().len() == 8 && u32::from_ne_bytes(*header) == IS_OBJECT)
    }

    /// A copy that outlives the call.
    pub fn to_image(self) -> JsonbImage {
        JsonbImage::copy_of(self.image())
    }

    /// The binary image without the length header, as `iot_core::jsonb` reads it.
    pub fn body(&self) -> &[u8] {
        &self.image()[size_of::<u32>()..]
    }

    /// This object with the pairs of `other`, which win: the operator `||`.
    pub fn with(self, other: Jsonb<'_>) -> JsonbImage {
        // SAFETY: the function takes two values of jsonb.
        unsafe {
            JsonbImage::result_of(
                pg_sys::jsonb_concat,
                &[Some(self.varlena.into()), Some(other.varlena.into())],
            )
        }
    }

    /// This object without the pair of `key`: the operator `-`.
    pub fn without(self, key: &str) -> JsonbImage {
        // SAFETY: the function takes a value of jsonb and a text.
        unsafe { JsonbImage::result_of(pg_sys::jsonb_delete, &[Some(self.varlena.into()), key.into_datum()]) }
    }

    /// The value as serde sees it. For rules and calibrations when they are compiled, not for readings.
    ///
    /// # Errors
    /// 54000 for nesting that is too deep.
    pub fn parse(&self) -> IotResult<Value> {
        // SAFETY: `jsonb_out` returns a NUL-terminated string in the current memory context.
        let text: Option<&CStr> =
            unsafe { direct_function_call(pg_sys::jsonb_out, &[Some(self.varlena.into())]) };
        serde_json::from_slice(text.unwrap_or_default().to_bytes()).map_err(|error| {
            IotError::new(
                PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                format!("jsonb value cannot be used: {error}"),
            )
            .hint("Nest it less deeply.")
        })
    }
}

impl FromDatum for Jsonb<'_> {
    // SAFETY: the trait's contract is enough: a datum of type jsonb.
    unsafe fn from_polymorphic_datum(
        datum: pg_sys::Datum,
        is_null: bool,
        _type: pg_sys::Oid,
    ) -> Option<Self> {
        if is_null {
            return None;
        }
        let varlena: *mut pg_sys::varlena = datum.cast_mut_ptr();
        // SAFETY: the caller passes a jsonb datum. Detoasting copies what is compressed, short or out of line; the call is
        // spared where the header tells that there is nothing to do, as arguments of hot functions mostly are plain.
        let varlena = unsafe {
            if pgrx::varatt_is_4b_u(varlena) { varlena } else { pg_sys::pg_detoast_datum(varlena) }
        };
        Some(Self { varlena, memory: PhantomData })
    }
}

impl IntoDatum for Jsonb<'_> {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        Some(self.varlena.into())
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::JSONBOID
    }
}

// SAFETY: unboxes through `FromDatum` above, which copies what does not already live as long as the call.
unsafe impl<'call> ArgAbi<'call> for Jsonb<'call> {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'call>) -> Self {
        // SAFETY: the function is declared with a jsonb argument.
        match unsafe { arg.unbox_arg_using_from_datum() } {
            Some(value) => value,
            None => IotError::null_argument("jsonb").raise(),
        }
    }
}

// SAFETY: names the SQL type whose datum the two conversions above handle.
unsafe impl SqlTranslatable for Jsonb<'_> {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(Jsonb);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal("jsonb"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::literal("jsonb")));
}

/// A `jsonb` value owned by Rust, for caches that outlive a call.
pub struct JsonbImage(Box<[u64]>);

impl JsonbImage {
    /// Compiles a parsed value back to its binary image.
    ///
    /// # Errors
    /// 22P05 for a string with a NUL character, which no jsonb holds.
    pub fn from_value(value: &Value) -> IotResult<Self> {
        let text = CString::new(value.to_string()).map_err(|_| {
            IotError::new(
                PgSqlErrorCode::ERRCODE_UNTRANSLATABLE_CHARACTER,
                "jsonb value contains a NUL character",
            )
        })?;
        Ok(Self::from_text(&text))
    }

    /// Size in bytes.
    pub fn size(&self) -> usize {
        size_of_val(&*self.0)
    }

    /// The value whose binary image without the length header is `body`.
    pub fn from_body(body: &[u8]) -> Self {
        let mut image = Vec::with_capacity(size_of::<u32>() + body.len());
        // The four-byte header of an uncompressed value holds its whole length in bytes, shifted.
        let length = (size_of::<u32>() + body.len()) as u32;
        let header = if cfg!(target_endian = "little") { length << 2 } else { length };
        image.extend_from_slice(&header.to_ne_bytes());
        image.extend_from_slice(body);
        Self::copy_of(&image)
    }

    /// Compiles JSON text.
    ///
    /// # Errors
    /// 22P05 for a text with a NUL character. What is no JSON raises 22P02.
    pub fn from_json_text(text: &str) -> IotResult<Self> {
        let text = CString::new(text).map_err(|_| {
            IotError::new(
                PgSqlErrorCode::ERRCODE_UNTRANSLATABLE_CHARACTER,
                "jsonb value contains a NUL character",
            )
        })?;
        Ok(Self::from_text(&text))
    }

    /// The binary image without the length header.
    pub fn body(&self) -> &[u8] {
        // SAFETY: the words are initialized and outlive the slice; the header holds the length of both together.
        let image = unsafe {
            std::slice::from_raw_parts(self.0.as_ptr().cast::<u8>(), varsize_any(self.0.as_ptr().cast()))
        };
        &image[size_of::<u32>()..]
    }

    /// This value as an argument.
    pub fn as_jsonb(&self) -> Jsonb<'_> {
        Jsonb { varlena: self.0.as_ptr().cast_mut().cast(), memory: PhantomData }
    }

    /// Whether `document` contains this value, exactly as the operator `@>` decides.
    pub fn is_contained_in(&self, document: Jsonb<'_>) -> bool {
        // The usual operand, a few members with plain values, needs no call.
        if let Root::Object(wanted) = Document::new(self.as_jsonb().body()).root()
            && !wanted.iter().any(|(_, value)| matches!(value, Root::Array(_) | Root::Object(_)))
        {
            return match Document::new(document.body()).root() {
                Root::Object(object) => wanted.iter().all(|(key, value)| object.get(key) == Some(value)),
                _ => false,
            };
        }
        // SAFETY: both arguments are detoasted jsonb values that the function only reads.
        unsafe {
            direct_function_call(
                pg_sys::jsonb_contains,
                &[Some(document.varlena.into()), Some(self.as_jsonb().varlena.into())],
            )
        }
        .unwrap_or(false)
    }

    /// Reads text that is known to be JSON; raises 22P02 for other text.
    pub fn from_text(text: &CStr) -> Self {
        // SAFETY: the function takes a NUL-terminated string.
        unsafe { Self::result_of(pg_sys::jsonb_in, &[text.into_datum()]) }
    }

    /// What `function` makes of `arguments`.
    ///
    /// # Safety
    /// It is one of PostgreSQL's that return jsonb, and the arguments are of its types.
    unsafe fn result_of(
        function: unsafe fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum,
        arguments: &[Option<pg_sys::Datum>],
    ) -> Self {
        // SAFETY: as the caller promises; it returns a plain varlena, fresh or its argument.
        let image = unsafe {
            direct_function_call_as_datum(function, arguments)
                .and_then(|datum| Jsonb::from_datum(datum, false))
        };
        match image {
            Some(image) => Self::copy_of(image.image()),
            None => {
                IotError::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "a function of jsonb returned NULL")
                    .raise()
            }
        }
    }

    /// Copies `image` to memory aligned as PostgreSQL wants a varlena to be.
    fn copy_of(image: &[u8]) -> Self {
        let words = image.chunks(8).map(|chunk| {
            let mut word = [0_u8; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_ne_bytes(word)
        });
        Self(words.collect())
    }
}
