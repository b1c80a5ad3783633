//! Reads PostgreSQL's binary `jsonb` where it lies, without copies and without allocation.
//!
//! The layout is that of PostgreSQL 9.4 and later (`utils/jsonb.h`), in native byte order. A container is a
//! `u32` header (count and kind), a `u32` entry for each child (for an object first all keys, then all values),
//! and the children's data. An entry holds the kind of the child and its length; every 32nd holds the end of its
//! data instead, so that random access need not add up more than 32 lengths. Numbers and containers begin at a
//! multiple of four bytes, and the padding before them counts as theirs.
//!
//! Bytes that are not of this layout never lead to a panic: what cannot be read is `null`, or ends its container.
//! Text must be UTF-8, as it is in a database whose encoding is UTF8; a string in another encoding is `null`, and
//! a pair with such a key ends its object.

mod container;
mod numeric;
mod text;

pub use container::{Array, ArrayIter, Object, ObjectIter};
pub use numeric::Numeric;

use container::{Container, ContainerKind};

/// A whole `jsonb` datum.
#[derive(Clone, Copy, Debug)]
pub struct Document<'a> {
    root: Value<'a>,
}

impl<'a> Document<'a> {
    /// The document in `image`, the bytes of a detoasted datum after the length word.
    pub fn new(image: &'a [u8]) -> Self {
        let root = match Container::new(image) {
            // A lone scalar is stored as an array of one element with a flag that says so.
            Some((ContainerKind::Scalar, container)) => Array::new(container).iter().next(),
            Some((kind, container)) => Some(Value::of_container(kind, container)),
            None => None,
        };
        Self { root: root.unwrap_or(Value::Null) }
    }

    /// The value of the document.
    pub fn root(&self) -> Value<'a> {
        self.root
    }
}

/// A value inside a document.
///
/// `Display` writes it as JSON text, from which `jsonb_in` makes an equal value: numbers keep all their digits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A string.
    String(&'a str),
    /// A number.
    Number(Numeric<'a>),
    /// An array.
    Array(Array<'a>),
    /// An object.
    Object(Object<'a>),
}

impl<'a> Value<'a> {
    /// The JSON text of the value.
    pub fn to_text(&self) -> String {
        self.to_string()
    }

    /// The name of the value's type, as `jsonb_typeof` says it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "boolean",
            Self::String(_) => "string",
            Self::Number(_) => "number",
            Self::Array(_) => "array",
            Self::Object(_) => "object",
        }
    }

    /// Whether this is `null`.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    fn of_container(kind: ContainerKind, container: Container<'a>) -> Self {
        match kind {
            ContainerKind::Array => Self::Array(Array::new(container)),
            ContainerKind::Object => Self::Object(Object::new(container)),
            ContainerKind::Scalar => Self::Null,
        }
    }
}
