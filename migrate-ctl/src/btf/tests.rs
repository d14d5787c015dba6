use super::{Btf, BtfError, MAGIC, Prototype, Returns};

#[test]
fn a_function_says_what_it_takes_and_returns() {
    let btf = Btf::parse(sample()).expect("a valid blob");
    let prototype = |returns| Some(Prototype { returns, arguments: 1 });
    assert_eq!(btf.function("as_bool"), prototype(Returns::Bool));
    assert_eq!(btf.function("as_int"), prototype(Returns::Integer));
    assert_eq!(btf.function("as_void"), prototype(Returns::Void));
    assert_eq!(btf.function("as_"), None);
}

#[test]
fn a_field_in_an_anonymous_struct_has_the_outer_offset() {
    let btf = Btf::parse(sample()).expect("a valid blob");
    assert_eq!(btf.offset("outer", "inner"), Some(12));
    assert_eq!(btf.offset("outer", "other"), None);
    assert_eq!(btf.offset("none", "inner"), None);
}

#[test]
fn an_array_field_has_a_length_and_others_have_none() {
    let btf = Btf::parse(sample()).expect("a valid blob");
    assert_eq!(btf.array_length("outer", "list"), Some(7));
    assert_eq!(btf.array_length("outer", "inner"), None);
}

#[test]
fn a_tracepoint_does_not_count_the_registered_data() {
    let btf = Btf::parse(sample()).expect("a valid blob");
    assert_eq!(btf.tracepoint_arguments("event"), Some(2));
    assert_eq!(btf.tracepoint_arguments("another"), None);
}

#[test]
fn an_enum_has_its_values_by_name() {
    let btf = Btf::parse(sample()).expect("a valid blob");
    assert_eq!(btf.values("colour"), [("RED", 0), ("BLUE", 4)]);
    assert_eq!(btf.value("colour", "BLUE"), Some(4));
    assert_eq!(btf.value("colour", "GREEN"), None);
}

#[test]
fn cut_input_is_an_error_or_less_known_but_never_a_panic() {
    let whole = sample();
    for length in 0..whole.len() {
        ask_everything(whole[..length].to_vec());
    }
    assert_eq!(Btf::parse(vec![0; 24]).err(), Some(BtfError::Magic(0)));
    assert_eq!(Btf::parse(whole[..40].to_vec()).err(), Some(BtfError::Short(40)));
}

#[test]
fn damaged_input_never_panics() {
    let whole = sample();
    for place in 0..whole.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut damaged = whole.clone();
            damaged[place] = value;
            ask_everything(damaged);
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
    assert_eq!(btf.array_length("task_struct", "comm"), Some(16));
    let fault = Prototype { returns: Returns::Integer, arguments: 4 };
    assert_eq!(btf.function("handle_mm_fault"), Some(fault));
    assert_eq!(btf.value("migrate_reason", "MR_COMPACTION"), Some(0));
    assert_eq!(btf.value("zone_type", "ZONE_NORMAL").map(|zone| zone > 0), Some(true));
    assert!(btf.tracepoint_arguments("mm_migrate_pages").is_some_and(|count| count >= 7));
}

fn ask_everything(blob: Vec<u8>) {
    if let Ok(btf) = Btf::parse(blob) {
        btf.function("as_bool");
        btf.offset("outer", "inner");
        btf.array_length("outer", "list");
        btf.tracepoint_arguments("event");
        btf.value("colour", "BLUE");
    }
}

fn sample() -> Vec<u8> {
    let mut blob = Builder::default();
    blob.function("as_bool", Returns::Bool, 1);
    blob.function("as_int", Returns::Integer, 1);
    blob.function("as_void", Returns::Void, 1);
    blob.tracepoint("event", 2);
    blob.enumeration("colour", &[("RED", 0), ("BLUE", 4)]);
    let int = blob.int(false);
    let list = blob.array(int, 7);
    let anonymous = blob.structure("", &[("first", int, 0), ("inner", int, 4)]);
    blob.structure("outer", &[("", anonymous, 8), ("list", list, 16)]);
    blob.finish()
}

/// Writes small BTF blobs.
#[derive(Default)]
pub(crate) struct Builder {
    words: Vec<u32>,
    strings: Vec<u8>,
    types: u32,
}

impl Builder {
    pub(crate) fn function(&mut self, name: &str, returns: Returns, arguments: usize) {
        let returned = match returns {
            Returns::Void => 0,
            Returns::Bool => self.int(true),
            Returns::Integer => self.int(false),
            Returns::Other => self.structure("other", &[]),
        };
        let prototype = self.prototype(returned, arguments);
        self.add(name, 12, 0, prototype, &[]);
    }

    pub(crate) fn tracepoint(&mut self, name: &str, arguments: usize) {
        let prototype = self.prototype(0, arguments + 1);
        let pointer = self.add("", 2, 0, prototype, &[]);
        self.add(&format!("btf_trace_{name}"), 8, 0, pointer, &[]);
    }

    pub(crate) fn enumeration(&mut self, name: &str, values: &[(&str, u32)]) {
        let items: Vec<u32> =
            values.iter().flat_map(|&(name, value)| [self.string(name), value]).collect();
        self.add(name, 6, values.len(), 4, &items);
    }

    /// Fields as name, type and offset in bytes.
    pub(crate) fn structure(&mut self, name: &str, fields: &[(&str, u32, u32)]) -> u32 {
        let items: Vec<u32> = fields
            .iter()
            .flat_map(|&(name, kind, bytes)| [self.string(name), kind, bytes * 8])
            .collect();
        self.add(name, 4, fields.len(), 64, &items)
    }

    pub(crate) fn array(&mut self, of: u32, length: u32) -> u32 {
        self.add("", 3, 0, 0, &[of, of, length])
    }

    pub(crate) fn int(&mut self, bool: bool) -> u32 {
        self.add("int", 1, 0, 4, &[if bool { 4 << 24 | 8 } else { 1 << 24 | 32 }])
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        let types: Vec<u8> = self.words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let length = |bytes: usize| u32::try_from(bytes).expect("small");
        // The first string is the empty one.
        let strings = [&[0], self.strings.as_slice()].concat();
        let mut blob = MAGIC.to_ne_bytes().to_vec();
        blob.extend([1, 0]);
        for word in [24, 0, length(types.len()), length(types.len()), length(strings.len())] {
            blob.extend(word.to_ne_bytes());
        }
        blob.extend(types);
        blob.extend(strings);
        blob
    }

    fn prototype(&mut self, returned: u32, arguments: usize) -> u32 {
        self.add("", 13, arguments, returned, &vec![0; 2 * arguments])
    }

    fn add(&mut self, name: &str, kind: u32, items: usize, third: u32, rest: &[u32]) -> u32 {
        let name = self.string(name);
        let items = u32::try_from(items).expect("small");
        self.words.extend([name, kind << 24 | items, third]);
        self.words.extend(rest);
        self.types += 1;
        self.types
    }

    fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let at = u32::try_from(self.strings.len() + 1).expect("small");
        self.strings.extend(text.as_bytes());
        self.strings.push(0);
        at
    }
}
