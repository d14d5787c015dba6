//! The running kernel's types, from /sys/kernel/btf/vmlinux.
//!
//! Answers just what the loader asks: does a function exist and what does it
//! return, how many arguments has a tracepoint, where is a field, what are the
//! values of an enum. The format: Documentation/bpf/btf.rst. Input that is cut
//! or wrong yields an error or "not there", never a panic.

use std::collections::HashMap;

const MAGIC: u16 = 0xeb9f;
/// Longest chain of typedefs and qualifiers that we follow.
const DEPTH: usize = 32;

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

#[derive(Clone, Copy, Debug)]
struct Type {
    name: u32,
    kind: Kind,
    /// Size in bytes, or the type that this one refers to.
    size_or_type: u32,
    /// Where the members, values or parameters begin in the blob, and how many there are.
    items: (usize, usize),
    /// Members' offsets carry a bit-field size in their upper byte.
    bitfields: bool,
    /// For integers: it is a `_Bool`.
    bool: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Int,
    Ptr,
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
    by_name: HashMap<(Kind2, String), usize>,
}

/// Namespaces of C: what may share a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind2 {
    Function,
    Typedef,
    Struct,
    Enum,
}

impl Btf {
    pub fn parse(blob: Vec<u8>) -> Result<Self, BtfError> {
        let magic = u16_at(&blob, 0)?;
        if magic != MAGIC {
            return Err(BtfError::Magic(magic));
        }
        let header = at(&blob, 4)?;
        let section = |field| Ok::<usize, BtfError>(header.saturating_add(at(&blob, field)?));
        let (types_at, types_len) = (section(8)?, at(&blob, 12)?);
        let strings = section(16)?;
        let end = types_at.saturating_add(types_len);
        let mut types = Vec::new();
        let mut here = types_at;
        while here < end {
            let (found, next) = parse_type(&blob, here, types.len() + 1)?;
            types.push(found);
            here = next;
        }
        let mut btf = Self { blob, strings, types, by_name: HashMap::new() };
        for index in 0..btf.types.len() {
            let space = match btf.types[index].kind {
                Kind::Func => Kind2::Function,
                Kind::Typedef => Kind2::Typedef,
                Kind::Struct => Kind2::Struct,
                Kind::Enum | Kind::Enum64 => Kind2::Enum,
                Kind::Int
                | Kind::Ptr
                | Kind::Union
                | Kind::Qualifier
                | Kind::FuncProto
                | Kind::Other => continue,
            };
            let name = btf.name(btf.types[index].name).to_owned();
            btf.by_name.entry((space, name)).or_insert(index);
        }
        Ok(btf)
    }

    /// What a function returns; none: this kernel has no such function.
    pub fn returns(&self, function: &str) -> Option<Returns> {
        let function = self.find(Kind2::Function, function)?;
        let prototype = self.get(function.size_or_type)?;
        if prototype.size_or_type == 0 {
            return Some(Returns::Void);
        }
        let result = self.resolve(prototype.size_or_type)?;
        Some(if result.bool {
            Returns::Bool
        } else if matches!(result.kind, Kind::Int | Kind::Enum) {
            Returns::Integer
        } else {
            Returns::Other
        })
    }

    /// Arguments of a tracepoint, without the registered data that comes first in its prototype.
    pub fn tracepoint_arguments(&self, tracepoint: &str) -> Option<usize> {
        let typedef = self.find(Kind2::Typedef, &format!("btf_trace_{tracepoint}"))?;
        let pointer = self.resolve(typedef.size_or_type)?;
        let prototype = self.get(pointer.size_or_type)?;
        (prototype.kind == Kind::FuncProto).then(|| prototype.items.1.saturating_sub(1))
    }

    /// Offset in bytes of a field, also within anonymous structs and unions.
    pub fn offset(&self, structure: &str, field: &str) -> Option<u32> {
        self.offset_in(self.find(Kind2::Struct, structure)?, field, DEPTH)
    }

    /// Size in bytes of what a typedef names.
    pub fn size_of(&self, typedef: &str) -> Option<u32> {
        let named = self.find(Kind2::Typedef, typedef)?;
        Some(self.resolve(named.size_or_type)?.size_or_type)
    }

    /// Names and values of an enum.
    pub fn values(&self, enumeration: &str) -> Vec<(String, u64)> {
        let Some(found) = self.find(Kind2::Enum, enumeration) else { return Vec::new() };
        let width = if found.kind == Kind::Enum64 { 12 } else { 8 };
        (0..found.items.1)
            .filter_map(|item| {
                let here = found.items.0 + item * width;
                let name = u32_at(&self.blob, here).ok()?;
                let value = u32_at(&self.blob, here + 4).ok()?;
                Some((self.name(name).to_owned(), u64::from(value)))
            })
            .collect()
    }

    fn offset_in(&self, of: &Type, field: &str, depth: usize) -> Option<u32> {
        let depth = depth.checked_sub(1)?;
        (0..of.items.1).find_map(|item| {
            let here = of.items.0 + item * 12;
            let name = u32_at(&self.blob, here).ok()?;
            let kind = u32_at(&self.blob, here + 4).ok()?;
            let raw = u32_at(&self.blob, here + 8).ok()?;
            let bits = if of.bitfields { raw & 0x00ff_ffff } else { raw };
            if self.name(name) == field {
                return Some(bits / 8);
            }
            let inner = self.get(kind).filter(|inner| {
                self.name(name).is_empty() && matches!(inner.kind, Kind::Struct | Kind::Union)
            })?;
            Some(bits / 8 + self.offset_in(inner, field, depth)?)
        })
    }

    fn find(&self, space: Kind2, name: &str) -> Option<&Type> {
        self.types.get(*self.by_name.get(&(space, name.to_owned()))?)
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

    fn name(&self, offset: u32) -> &str {
        let from = self.strings.saturating_add(offset as usize);
        let text = self.blob.get(from..).unwrap_or_default();
        let end = text.iter().position(|&byte| byte == 0).unwrap_or(0);
        std::str::from_utf8(&text[..end]).unwrap_or_default()
    }
}

/// One type and where the next begins.
fn parse_type(blob: &[u8], here: usize, index: usize) -> Result<(Type, usize), BtfError> {
    let info = u32_at(blob, here + 4)?;
    let (count, raw) = ((info & 0xffff) as usize, (info >> 24 & 0x1f) as u8);
    let (kind, item, fixed) = match raw {
        1 => (Kind::Int, 0, 4),
        2 => (Kind::Ptr, 0, 0),
        3 => (Kind::Other, 0, 12),
        4 => (Kind::Struct, 12, 0),
        5 => (Kind::Union, 12, 0),
        6 => (Kind::Enum, 8, 0),
        7 | 16 => (Kind::Other, 0, 0),
        8 => (Kind::Typedef, 0, 0),
        9..=11 | 18 => (Kind::Qualifier, 0, 0),
        12 => (Kind::Func, 0, 0),
        13 => (Kind::FuncProto, 8, 0),
        14 | 17 => (Kind::Other, 0, 4),
        15 => (Kind::Other, 12, 0),
        19 => (Kind::Enum64, 12, 0),
        _ => return Err(BtfError::Kind { index, kind: raw }),
    };
    // The item count of a function is its linkage.
    let items = if item == 0 { 0 } else { count };
    let next = here + 12 + fixed + items * item;
    if next > blob.len() {
        return Err(BtfError::Short(blob.len()));
    }
    let found = Type {
        name: u32_at(blob, here)?,
        kind,
        size_or_type: u32_at(blob, here + 8)?,
        items: (here + 12 + fixed, items),
        bitfields: info >> 31 == 1,
        // BTF_INT_BOOL in the encoding of an integer.
        bool: kind == Kind::Int && u32_at(blob, here + 12)? >> 24 & 4 != 0,
    };
    Ok((found, next))
}

fn u32_at(blob: &[u8], here: usize) -> Result<u32, BtfError> {
    let bytes = here.checked_add(4).and_then(|end| blob.get(here..end));
    let bytes = bytes.and_then(|bytes| bytes.try_into().ok()).ok_or(BtfError::Short(blob.len()))?;
    Ok(u32::from_ne_bytes(bytes))
}

fn u16_at(blob: &[u8], here: usize) -> Result<u16, BtfError> {
    let bytes = blob.get(here..here + 2).and_then(|bytes| bytes.try_into().ok());
    Ok(u16::from_ne_bytes(bytes.ok_or(BtfError::Short(blob.len()))?))
}

fn at(blob: &[u8], here: usize) -> Result<usize, BtfError> {
    Ok(u32_at(blob, here)? as usize)
}

#[cfg(test)]
mod tests {
    use super::{Btf, BtfError, Returns};

    #[test]
    fn a_function_says_what_it_returns() {
        let btf = Btf::parse(sample()).expect("a valid blob");
        assert_eq!(btf.returns("f"), Some(Returns::Bool));
        assert_eq!(btf.returns("g"), None);
    }

    #[test]
    fn a_field_in_an_anonymous_struct_has_the_outer_offset() {
        let btf = Btf::parse(sample()).expect("a valid blob");
        assert_eq!(btf.offset("s", "x"), Some(8));
        assert_eq!(btf.offset("s", "y"), None);
    }

    #[test]
    fn cut_input_is_an_error_or_less_known_but_never_a_panic() {
        let whole = sample();
        for length in 0..whole.len() {
            if let Ok(btf) = Btf::parse(whole[..length].to_vec()) {
                btf.returns("f");
                btf.offset("s", "x");
            }
        }
        assert_eq!(Btf::parse(vec![0; 24]).err(), Some(BtfError::Magic(0)));
    }

    #[test]
    fn damaged_input_never_panics() {
        let whole = sample();
        for place in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut damaged = whole.clone();
                damaged[place] = value;
                if let Ok(btf) = Btf::parse(damaged) {
                    btf.returns("f");
                    btf.offset("s", "x");
                }
            }
        }
    }

    #[test]
    fn this_machines_kernel_can_be_read() {
        let Ok(blob) = std::fs::read("/sys/kernel/btf/vmlinux") else {
            panic!("this test needs a kernel with BTF");
        };
        let btf = Btf::parse(blob).expect("the kernel's own BTF");
        assert_eq!(btf.offset("list_head", "next"), Some(0));
        assert_eq!(btf.offset("list_head", "prev"), Some(8));
        assert_eq!(btf.returns("handle_mm_fault"), Some(Returns::Integer));
        assert!(btf.values("migrate_reason").iter().any(|(name, _)| name == "MR_SYSCALL"));
        assert!(btf.tracepoint_arguments("mm_migrate_pages").is_some_and(|count| count >= 7));
    }

    /// `_Bool f(void)`; `struct s { struct { } at 8 with x at 0 }`.
    fn sample() -> Vec<u8> {
        let strings = b"\0f\0s\0x\0_Bool\0";
        let mut types: Vec<u32> = Vec::new();
        types.extend([7, 1 << 24, 1, 4 << 24 | 8]); // 1: _Bool
        types.extend([0, 13 << 24, 1]); // 2: prototype returning 1
        types.extend([1, 12 << 24 | 1, 2]); // 3: f
        types.extend([0, 4 << 24 | 1, 8, 5, 1, 0]); // 4: struct { x }
        types.extend([3, 4 << 24 | 1, 16, 0, 4, 64]); // 5: struct s
        let types: Vec<u8> = types.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut blob = Vec::new();
        blob.extend(super::MAGIC.to_ne_bytes());
        blob.extend([1, 0]);
        let lengths = [24, 0, types.len(), types.len(), strings.len()];
        for word in lengths {
            blob.extend(u32::try_from(word).expect("small").to_ne_bytes());
        }
        blob.extend(types);
        blob.extend(strings);
        blob
    }
}
