//! Arrays and objects.

use super::{Numeric, Value};

/// Bits of a container's header that count its elements or pairs.
const COUNT_MASK: u32 = 0x0FFF_FFFF;
/// The container is an array of one that stands for its element.
const SCALAR_FLAG: u32 = 0x1000_0000;
const OBJECT_FLAG: u32 = 0x2000_0000;
const ARRAY_FLAG: u32 = 0x4000_0000;

/// Bits of an entry that hold a length or an end.
const LENGTH_MASK: u32 = 0x0FFF_FFFF;
/// These bits are the end of the child's data, not its length.
const HAS_OFFSET: u32 = 0x8000_0000;
const KIND_MASK: u32 = 0x7000_0000;
const STRING: u32 = 0x0000_0000;
const NUMERIC: u32 = 0x1000_0000;
const FALSE: u32 = 0x2000_0000;
const TRUE: u32 = 0x3000_0000;
const CONTAINER: u32 = 0x5000_0000;

/// What a container is, by the flags of its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContainerKind {
    Array,
    Object,
    Scalar,
}

/// A container whose entries are known to lie within its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Container<'a> {
    /// From the header to the end of the last child.
    image: &'a [u8],
    /// One for each element, or all keys and then all values.
    entries: &'a [[u8; 4]],
    /// What offsets count from. It begins at a multiple of four bytes from the root, as the container does.
    data: &'a [u8],
}

impl<'a> Container<'a> {
    /// The container that begins at `image`, and its kind. `None` if the header or an entry is missing.
    pub(super) fn new(image: &'a [u8]) -> Option<(ContainerKind, Self)> {
        let (header, rest) = image.split_first_chunk::<4>()?;
        let header = u32::from_ne_bytes(*header);
        let count = usize::try_from(header & COUNT_MASK).ok()?;
        let (kind, entry_count) = match header & !COUNT_MASK {
            ARRAY_FLAG => (ContainerKind::Array, count),
            OBJECT_FLAG => (ContainerKind::Object, count.checked_mul(2)?),
            flags if flags == SCALAR_FLAG | ARRAY_FLAG => (ContainerKind::Scalar, count),
            _ => return None,
        };
        let (entries, data) = rest.split_at_checked(entry_count.checked_mul(4)?)?;
        Some((kind, Self { image, entries: entries.as_chunks().0, data }))
    }

    fn entry(&self, index: usize) -> Option<u32> {
        self.entries.get(index).map(|entry| u32::from_ne_bytes(*entry))
    }

    /// Where the data of child `index` begins: the lengths before it, back to the last entry with an end.
    fn offset(&self, index: usize) -> Option<usize> {
        let mut offset = 0;
        for entry in self.entries.get(..index)?.iter().rev().map(|entry| u32::from_ne_bytes(*entry)) {
            offset = length_or_end(entry).checked_add(offset)?;
            if entry & HAS_OFFSET != 0 {
                break;
            }
        }
        Some(offset)
    }

    /// Entry and data of the child `index` that begins at `offset`, which moves to its end.
    ///
    /// `None` at the end of the entries, and where the data would lie outside the container.
    fn step(&self, index: usize, offset: &mut usize) -> Option<Child<'a>> {
        let entry = self.entry(index)?;
        let (start, field) = (*offset, length_or_end(entry));
        let end = if entry & HAS_OFFSET != 0 { field } else { start.checked_add(field)? };
        let bytes = self.data.get(start..end)?;
        *offset = end;
        // Only what begins at a multiple of four skips padding; the data itself begins at one.
        Some(Child { kind: entry & KIND_MASK, bytes, padding: start.wrapping_neg() & 3 })
    }
}

/// At most 28 bits, which fit everywhere that PostgreSQL runs.
fn length_or_end(entry: u32) -> usize {
    (entry & LENGTH_MASK) as usize
}

#[derive(Clone, Copy)]
pub(crate) struct Child<'a> {
    kind: u32,
    bytes: &'a [u8],
    padding: usize,
}

impl<'a> Child<'a> {
    /// The bytes of a string; `None` for what is none.
    fn string_bytes(self) -> Option<&'a [u8]> {
        (self.kind == STRING).then_some(self.bytes)
    }

    #[inline]
    pub(crate) fn value(self) -> Value<'a> {
        match self.kind {
            STRING => std::str::from_utf8(self.bytes).map_or(Value::Null, Value::String),
            NUMERIC => self.aligned().and_then(Numeric::new).map_or(Value::Null, Value::Number),
            FALSE => Value::Bool(false),
            TRUE => Value::Bool(true),
            CONTAINER => self.aligned().and_then(Container::new).map_or(Value::Null, |(kind, container)| {
                // A nested container is shorter than the one around it, so that nesting ends.
                Value::of_container(kind, container)
            }),
            _ => Value::Null,
        }
    }

    fn aligned(self) -> Option<&'a [u8]> {
        self.bytes.get(self.padding..)
    }
}

/// An array.
#[derive(Clone, Copy, Debug)]
pub struct Array<'a> {
    container: Container<'a>,
}

impl<'a> Array<'a> {
    pub(super) fn new(container: Container<'a>) -> Self {
        Self { container }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.container.entries.len()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements in order, in constant time each.
    pub fn iter(&self) -> ArrayIter<'a> {
        ArrayIter { container: self.container, index: 0, offset: 0 }
    }

    /// The array as a document of its own: what follows the length word of a datum that holds just this.
    pub fn image(&self) -> &'a [u8] {
        self.container.image
    }
}

/// Equal if the images are: stricter than `jsonb`'s `=`, in that 1.0 inside is not 1.
impl PartialEq for Array<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.image() == other.image()
    }
}

impl<'a> IntoIterator for Array<'a> {
    type Item = Value<'a>;
    type IntoIter = ArrayIter<'a>;

    fn into_iter(self) -> ArrayIter<'a> {
        self.iter()
    }
}

/// The elements of an array.
#[derive(Clone, Debug)]
pub struct ArrayIter<'a> {
    container: Container<'a>,
    index: usize,
    offset: usize,
}

impl<'a> Iterator for ArrayIter<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        let child = self.container.step(self.index, &mut self.offset)?;
        self.index += 1;
        Some(child.value())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.container.entries.len().saturating_sub(self.index)))
    }
}

/// An object, whose pairs are sorted by the length of their keys, then by their bytes.
#[derive(Clone, Copy, Debug)]
pub struct Object<'a> {
    container: Container<'a>,
}

impl<'a> Object<'a> {
    pub(super) fn new(container: Container<'a>) -> Self {
        Self { container }
    }

    /// The number of pairs.
    pub fn len(&self) -> usize {
        self.container.entries.len() / 2
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pairs of key and value, in constant time each.
    pub fn iter(&self) -> ObjectIter<'a> {
        ObjectIter { children: self.children() }
    }

    /// The value of `key`, by binary search. `None` if there is no such key.
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            let found = self.container.step(middle, &mut self.container.offset(middle)?)?.string_bytes()?;
            match found.len().cmp(&key.len()).then_with(|| found.cmp(key.as_bytes())) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => {
                    let index = self.len() + middle;
                    return Some(self.container.step(index, &mut self.container.offset(index)?)?.value());
                }
            }
        }
        None
    }

    /// The object as a document of its own: what follows the length word of a datum that holds just this.
    pub fn image(&self) -> &'a [u8] {
        self.container.image
    }

    /// The pairs, keys as bytes and values not yet decoded.
    pub(crate) fn children(&self) -> ObjectChildren<'a> {
        ObjectChildren {
            container: self.container,
            index: 0,
            key_offset: 0,
            value_offset: self.container.offset(self.len()).unwrap_or(usize::MAX),
        }
    }
}

/// Equal if the images are: stricter than `jsonb`'s `=`, in that 1.0 inside is not 1.
impl PartialEq for Object<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.image() == other.image()
    }
}

impl<'a> IntoIterator for Object<'a> {
    type Item = (&'a str, Value<'a>);
    type IntoIter = ObjectIter<'a>;

    fn into_iter(self) -> ObjectIter<'a> {
        self.iter()
    }
}

/// The pairs of an object.
#[derive(Clone, Debug)]
pub struct ObjectIter<'a> {
    children: ObjectChildren<'a>,
}

impl<'a> Iterator for ObjectIter<'a> {
    type Item = (&'a str, Value<'a>);

    fn next(&mut self) -> Option<(&'a str, Value<'a>)> {
        let (key, child) = self.children.next()?;
        Some((std::str::from_utf8(key).ok()?, child.value()))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some((self.children.container.entries.len() / 2).saturating_sub(self.children.index)))
    }
}

/// The pairs of an object, keys as bytes and values not yet decoded.
#[derive(Clone, Debug)]
pub(crate) struct ObjectChildren<'a> {
    container: Container<'a>,
    index: usize,
    key_offset: usize,
    value_offset: usize,
}

impl<'a> Iterator for ObjectChildren<'a> {
    type Item = (&'a [u8], Child<'a>);

    #[inline]
    fn next(&mut self) -> Option<(&'a [u8], Child<'a>)> {
        let pairs = self.container.entries.len() / 2;
        if self.index >= pairs {
            return None;
        }
        let key = self.container.step(self.index, &mut self.key_offset)?.string_bytes()?;
        let child = self.container.step(pairs + self.index, &mut self.value_offset)?;
        self.index += 1;
        Some((key, child))
    }
}
