//! The running kernel's types, from /sys/kernel/btf/vmlinux.
//!
//! Answers just what the loader asks: does a function exist and what does it
//! return, how many arguments has a tracepoint, where is a field, what are the
//! values of an enum. The format: Documentation/bpf/btf.rst. Input that is cut
//! or wrong yields an error or "not there", never a panic.

#[cfg(test)]
pub(crate) mod tests;

const MAGIC: u16 = 0xeb9f;
/// Longest chain of typedefs, qualifiers or nested structs that we follow.
const DEPTH: usize = 32;
/// Bytes of the fields that every type has.
const TYPE: usize = 12;
/// Bytes of a member of a struct or union, and of an array's description.
const MEMBER: usize = 12;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    #[error("not BTF of this byte order: magic {0:#06x}")]
    Magic(u16),
    #[error("BTF is cut short at byte {0}")]
    Short(usize),
    #[error("BTF type {index} is of unknown kind {kind}")]
    Kind { index: usize, kind: u8 },
}

/// What a function returns, as far as a probe cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returns {
    Void,
    Bool,
    Integer,
    Other,
}

/// What a probe relies on of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prototype {
    pub returns: Returns,
    pub arguments: usize,
}

#[derive(Clone, Copy, Debug)]
struct Type {
    /// Offset of its name in the strings.
    name: u32,
    kind: Kind,
    /// Size in bytes, or the type that this one refers to.
    size_or_type: u32,
    /// Where what follows the common fields begins in the blob.
    rest: usize,
    /// Number of members, values or parameters.
    items: usize,
    /// Members' offsets carry a bit-field size in their upper byte.
    bitfields: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Int,
    Array,
    Struct,
    Union,
    Enum,
    Enum64,
    Typedef,
    Qualifier,
    Func,
    FuncProto,
    Other,
}

pub struct Btf {
    blob: Vec<u8>,
    strings: usize,
    types: Vec<Type>,
}

struct Member {
    name: u32,
    kind: u32,
    bytes: u32,
}

impl Btf {
    /// # Errors
    /// The header or a type does not lie wholly in `blob`, or is of a kind that we do not know.
    pub fn parse(blob: Vec<u8>) -> Result<Self, BtfError> {
        let magic = u16_at(&blob, 0)?;
        if magic != MAGIC {
            return Err(BtfError::Magic(magic));
        }
        let header = at(&blob, 4)?;
        let mut here = header.saturating_add(at(&blob, 8)?);
        let end = here.saturating_add(at(&blob, 12)?);
        let strings = header.saturating_add(at(&blob, 16)?);
        let mut types = Vec::new();
        while here < end {
            let (found, next) = parse_type(&blob, here, types.len() + 1)?;
            types.push(found);
            here = next;
        }
        Ok(Self { blob, strings, types })
    }

    /// None: this kernel has no such function.
    pub fn function(&self, name: &str) -> Option<Prototype> {
        let function = self.find(Kind::Func, name)?;
        let prototype = self.get(function.size_or_type)?;
        let returns = match self.resolve(prototype.size_or_type) {
            None => Returns::Void,
            Some(found) if found.kind == Kind::Int && self.is_bool(found) => Returns::Bool,
            Some(found) if matches!(found.kind, Kind::Int | Kind::Enum) => Returns::Integer,
            Some(_) => Returns::Other,
        };
        Some(Prototype { returns, arguments: prototype.items })
    }

    /// Arguments of a tracepoint, without the registered data that comes first in its prototype.
    pub fn tracepoint_arguments(&self, tracepoint: &str) -> Option<usize> {
        let typedef = self.find(Kind::Typedef, &format!("btf_trace_{tracepoint}"))?;
        let pointer = self.get(typedef.size_or_type)?;
        let prototype = self.get(pointer.size_or_type)?;
        (prototype.kind == Kind::FuncProto).then(|| prototype.items.saturating_sub(1))
    }

    /// Offset in bytes of a field, also within anonymous structs and unions.
    pub fn offset(&self, structure: &str, field: &str) -> Option<u32> {
        self.field(self.find(Kind::Struct, structure)?, field, DEPTH).map(|(bytes, _)| bytes)
    }

    /// Elements of a field that is an array.
    pub fn array_length(&self, structure: &str, field: &str) -> Option<u32> {
        let (_, kind) = self.field(self.find(Kind::Struct, structure)?, field, DEPTH)?;
        let array = self.resolve(kind).filter(|found| found.kind == Kind::Array)?;
        u32_at(&self.blob, array.rest + 8).ok()
    }

    /// Names and values of an enum; none if this kernel has no such enum.
    pub fn values(&self, enumeration: &str) -> Vec<(&str, u32)> {
        let narrow = self.find(Kind::Enum, enumeration).map(|found| (found, 8));
        let wide = || self.find(Kind::Enum64, enumeration).map(|found| (found, 12));
        let Some((found, width)) = narrow.or_else(wide) else { return Vec::new() };
        (0..found.items)
            .filter_map(|item| {
                let here = found.rest + item * width;
                let name = u32_at(&self.blob, here).ok()?;
                Some((self.name(name), u32_at(&self.blob, here + 4).ok()?))
            })
            .collect()
    }

    /// One value of an enum.
    pub fn value(&self, enumeration: &str, name: &str) -> Option<u32> {
        let values = self.values(enumeration);
        values.iter().find(|&&(this, _)| this == name).map(|&(_, value)| value)
    }

    /// Offset and type of a field.
    fn field(&self, of: &Type, name: &str, depth: usize) -> Option<(u32, u32)> {
        let depth = depth.checked_sub(1)?;
        (0..of.items).find_map(|item| {
            let member = self.member(of, item)?;
            let its_name = self.name(member.name);
            if its_name == name {
                return Some((member.bytes, member.kind));
            }
            let inner = self.get(member.kind).filter(|inner| {
                its_name.is_empty() && matches!(inner.kind, Kind::Struct | Kind::Union)
            })?;
            let (bytes, kind) = self.field(inner, name, depth)?;
            Some((member.bytes.checked_add(bytes)?, kind))
        })
    }

    fn member(&self, of: &Type, item: usize) -> Option<Member> {
        let here = of.rest + item * MEMBER;
        let raw = u32_at(&self.blob, here + 8).ok()?;
        let bits = if of.bitfields { raw & 0x00ff_ffff } else { raw };
        Some(Member {
            name: u32_at(&self.blob, here).ok()?,
            kind: u32_at(&self.blob, here + 4).ok()?,
            bytes: bits / 8,
        })
    }

    /// `BTF_INT_BOOL` in the encoding of an integer.
    fn is_bool(&self, integer: &Type) -> bool {
        u32_at(&self.blob, integer.rest).is_ok_and(|encoding| encoding >> 24 & 4 != 0)
    }

    /// A walk through all types: a dozen of questions at the start do not pay for an index.
    fn find(&self, kind: Kind, name: &str) -> Option<&Type> {
        self.types.iter().find(|found| found.kind == kind && self.is_named(found.name, name))
    }

    /// Type numbers begin at 1; 0 is void.
    fn get(&self, number: u32) -> Option<&Type> {
        self.types.get((number as usize).checked_sub(1)?)
    }

    /// Looks through typedefs and qualifiers.
    fn resolve(&self, number: u32) -> Option<&Type> {
        let mut found = self.get(number)?;
        for _ in 0..DEPTH {
            if !matches!(found.kind, Kind::Typedef | Kind::Qualifier) {
                return Some(found);
            }
            found = self.get(found.size_or_type)?;
        }
        None
    }

    fn is_named(&self, offset: u32, name: &str) -> bool {
        let rest = self.text(offset).strip_prefix(name.as_bytes());
        rest.is_some_and(|rest| rest.first() == Some(&0))
    }

    fn name(&self, offset: u32) -> &str {
        let text = self.text(offset);
        let end = text.iter().position(|&byte| byte == 0).unwrap_or(0);
        std::str::from_utf8(&text[..end]).unwrap_or_default()
    }

    fn text(&self, offset: u32) -> &[u8] {
        let from = self.strings.saturating_add(offset as usize);
        self.blob.get(from..).unwrap_or_default()
    }
}

/// One type and where the next begins.
fn parse_type(blob: &[u8], here: usize, index: usize) -> Result<(Type, usize), BtfError> {
    let info = u32_at(blob, here + 4)?;
    let (count, raw) = ((info & 0xffff) as usize, (info >> 24 & 0x1f) as u8);
    // What follows the common fields: bytes for each item, and bytes once.
    let (kind, item, once) = match raw {
        1 => (Kind::Int, 0, 4),
        2 | 7 | 16 => (Kind::Other, 0, 0),
        3 => (Kind::Array, 0, MEMBER),
        4 => (Kind::Struct, MEMBER, 0),
        5 => (Kind::Union, MEMBER, 0),
        6 => (Kind::Enum, 8, 0),
        8 => (Kind::Typedef, 0, 0),
        9..=11 | 18 => (Kind::Qualifier, 0, 0),
        12 => (Kind::Func, 0, 0),
        13 => (Kind::FuncProto, 8, 0),
        14 | 17 => (Kind::Other, 0, 4),
        15 => (Kind::Other, 12, 0),
        19 => (Kind::Enum64, 12, 0),
        kind => return Err(BtfError::Kind { index, kind }),
    };
    // The item count of a function is its linkage.
    let items = if item == 0 { 0 } else { count };
    let next = here + TYPE + once + items * item;
    if next > blob.len() {
        return Err(BtfError::Short(blob.len()));
    }
    let found = Type {
        name: u32_at(blob, here)?,
        kind,
        size_or_type: u32_at(blob, here + 8)?,
        rest: here + TYPE,
        items,
        bitfields: info >> 31 == 1,
    };
    Ok((found, next))
}

fn u32_at(blob: &[u8], here: usize) -> Result<u32, BtfError> {
    let bytes = here.checked_add(4).and_then(|end| blob.get(here..end));
    let bytes = bytes.and_then(|bytes| bytes.try_into().ok()).ok_or(BtfError::Short(blob.len()))?;
    Ok(u32::from_ne_bytes(bytes))
}

fn u16_at(blob: &[u8], here: usize) -> Result<u16, BtfError> {
    let bytes = here.checked_add(2).and_then(|end| blob.get(here..end));
    let bytes = bytes.and_then(|bytes| bytes.try_into().ok()).ok_or(BtfError::Short(blob.len()))?;
    Ok(u16::from_ne_bytes(bytes))
}

fn at(blob: &[u8], here: usize) -> Result<usize, BtfError> {
    Ok(u32_at(blob, here)? as usize)
}
