//! Which accesses to memory went to another node, as the processor itself says?
//!
//! A PMU that samples loads with their data source names for each sample what
//! answered it: a cache, local memory or remote memory. Intel's `mem-loads` and
//! AMD's `ibs_op` do; guests mostly have neither. Opens one event a CPU, reads
//! the rings, and counts. Nothing here decides anything.
//!
//! Written after the kernel's ABI (`include/uapi/linux/perf_event.h`,
//! `Documentation/ABI/testing/sysfs-bus-event_source-devices-format`). No machine
//! with such a PMU was at hand: what reads the rings is tested with the clock of
//! each CPU in place of the PMU's event, what chooses the event with a copy of its
//! sysfs. The policy does not use the numbers.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use perf_event::data::{DataSource, MemLevel, MemLevelNum, Record};
use perf_event::events::Software;
use perf_event::{Builder, Counter, SampleFlag, SampleSkid, Sampler};

use crate::model::{Accesses, Node};
use crate::topology::Topology;

/// Samples a second on each CPU: their cost is bounded whatever the program does.
const HERTZ: u64 = 99;
/// Bytes of a CPU's ring: ten seconds of samples of 40 bytes.
const RING: usize = 1 << 16;
/// Slower loads only, in cycles: beyond every cache of today's processors on the same socket, so
/// that the few samples are not spent on hits.
const SLOW: u64 = 128;
const DEVICES: &str = "sys/bus/event_source/devices";
/// What `doctor` says where no PMU can.
const NO_PMU: &str = "no PMU here";

/// Why there are no samples.
#[derive(Debug, thiserror::Error)]
pub enum HardwareError {
    #[error("{NO_PMU}")]
    NoPmu,
    #[error("{event} on CPU {cpu}: {source}")]
    Refused { event: &'static str, cpu: u32, source: io::Error },
    #[error("{event}: sysfs describes it in a way that is not understood: {found}")]
    Strange { event: &'static str, found: String },
}

/// An event as `perf_event_open(2)` wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Event {
    /// As `doctor` names it.
    name: &'static str,
    /// The number of its PMU.
    kind: u32,
    /// `config`, `config1` and `config2`.
    config: [u64; 3],
    /// Some processors deliver the data source of the next group member only beside this one.
    leader: Option<[u64; 3]>,
    skid: SampleSkid,
}

/// What to ask a PMU for.
struct Wish {
    name: &'static str,
    pmu: &'static str,
    /// A file of its `events`; without one it has a single event.
    event: Option<&'static str>,
    leader: &'static str,
    /// Set where the PMU has such a field.
    fields: &'static [(&'static str, u64)],
    skid: SampleSkid,
}

const WISHES: [Wish; 2] = [
    Wish {
        name: "cpu/mem-loads",
        pmu: "cpu",
        event: Some("mem-loads"),
        leader: "mem-loads-aux",
        fields: &[("ldlat", SLOW)],
        skid: SampleSkid::RequestZero,
    },
    Wish {
        name: "ibs_op",
        pmu: "ibs_op",
        event: None,
        leader: "",
        fields: &[("l3missonly", 1)],
        skid: SampleSkid::Arbitrary,
    },
];

/// Open events, one a CPU.
pub struct Hardware {
    name: &'static str,
    rings: Vec<Ring>,
}

struct Ring {
    node: Node,
    sampler: Sampler,
    /// Counts nothing that anybody reads.
    _leader: Option<Counter>,
}

/// What the rings held.
#[derive(Default)]
pub struct Samples {
    pub accesses: BTreeMap<(u32, Node), Accesses>,
    /// Samples that found a ring full.
    pub lost: u64,
}

impl Hardware {
    /// Samples from here on.
    ///
    /// # Errors
    /// No PMU samples loads here, or the kernel refuses it.
    pub fn open(root: &Path, topology: &Topology) -> Result<Self, HardwareError> {
        Self::sample(find(root)?, topology)
    }

    /// The same with the clock of each CPU, for tests: no sample of it is an access.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn open_clock(topology: &Topology) -> Result<Self, HardwareError> {
        // PERF_TYPE_SOFTWARE and PERF_COUNT_SW_CPU_CLOCK.
        let (kind, config) = (1, [0; 3]);
        let skid = SampleSkid::Arbitrary;
        Self::sample(Event { name: "cpu-clock", kind, config, leader: None, skid }, topology)
    }

    fn sample(event: Event, topology: &Topology) -> Result<Self, HardwareError> {
        let rings = topology.cpus().map(|(cpu, node)| {
            Ring::open(&event, cpu, node).map_err(|source| HardwareError::Refused {
                event: event.name,
                cpu,
                source,
            })
        });
        Ok(Self { name: event.name, rings: rings.collect::<Result<_, _>>()? })
    }

    /// The event that is sampled.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What has come since the last call, by process and by the node of the CPU.
    pub fn take(&mut self) -> Samples {
        let mut samples = Samples::default();
        for ring in &mut self.rings {
            ring.take(&mut samples);
        }
        samples
    }
}

impl Ring {
    fn open(event: &Event, cpu: u32, node: Node) -> io::Result<Self> {
        let mut leader = match event.leader {
            Some(config) => Some(builder(event.kind, config, cpu).build()?),
            None => None,
        };
        let mut builder = builder(event.kind, event.config, cpu);
        builder
            .sample(SampleFlag::TID)
            .sample(SampleFlag::DATA_SRC)
            .sample_frequency(HERTZ)
            .precise_ip(event.skid);
        let mut counter = match &mut leader {
            Some(leader) => builder.build_with_group(leader)?,
            None => builder.build()?,
        };
        match &mut leader {
            Some(leader) => leader.enable_group()?,
            None => counter.enable()?,
        }
        Ok(Self { node, sampler: counter.sampled(RING)?, _leader: leader })
    }

    fn take(&mut self, samples: &mut Samples) {
        while let Some(record) = self.sampler.next_record() {
            match record.parse_record() {
                Ok(Record::Sample(sample)) => {
                    let pid = sample.pid().unwrap_or(0);
                    let accesses = samples.accesses.entry((pid, self.node)).or_default();
                    accesses.add(answered(sample.data_src()));
                }
                Ok(Record::Lost(lost)) => samples.lost += lost.lost,
                // The kernel says that it sampled less for a while, or what nobody asked for.
                Ok(_) | Err(_) => {}
            }
        }
    }
}

fn answered(source: Option<DataSource>) -> Accesses {
    const REMOTE: MemLevel = MemLevel::REM_RAM1.union(MemLevel::REM_RAM2);
    let (local, remote) = source.map_or((false, false), |source| {
        let memory = source.mem_lvl_num() == MemLevelNum::RAM;
        let remote = source.mem_lvl().intersects(REMOTE) || (memory && source.mem_remote());
        (memory || source.mem_lvl().contains(MemLevel::LOC_RAM), remote)
    });
    match (local, remote) {
        (_, true) => Accesses { remote: 1, ..Accesses::default() },
        (true, false) => Accesses { local: 1, ..Accesses::default() },
        (false, false) => Accesses { other: 1, ..Accesses::default() },
    }
}

fn builder(kind: u32, config: [u64; 3], cpu: u32) -> Builder<'static> {
    let mut builder = Builder::new(Software::DUMMY);
    let attributes = builder.attrs_mut();
    attributes.type_ = kind;
    [attributes.config, attributes.config1, attributes.config2] = config;
    // AMD's samples cannot leave anybody out; the kernel's accesses are the process's as well.
    builder.include_kernel().include_hv().any_pid().one_cpu(cpu as usize);
    builder
}

/// The first event of [`WISHES`] that this machine has.
fn find(root: &Path) -> Result<Event, HardwareError> {
    let devices = root.join(DEVICES);
    for wish in &WISHES {
        let pmu = devices.join(wish.pmu);
        if pmu.exists() && wish.event.is_none_or(|event| pmu.join("events").join(event).exists()) {
            return wish
                .described(&pmu)
                .map_err(|found| HardwareError::Strange { event: wish.name, found });
        }
    }
    Err(HardwareError::NoPmu)
}

impl Wish {
    /// Or what is not understood.
    fn described(&self, pmu: &Path) -> Result<Event, String> {
        let read = |name: &str| {
            let path = pmu.join(name);
            fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
        };
        let kind = read("type")?;
        let kind = kind.trim().parse().map_err(|_error| format!("type {kind}"))?;
        let mut config = [0; 3];
        if let Some(event) = self.event {
            set_all(&read(&format!("events/{event}"))?, &read, &mut config)?;
        }
        for &(field, value) in self.fields {
            if let Ok(format) = read(&format!("format/{field}")) {
                set(&format, value, &mut config)?;
            }
        }
        let mut leader = None;
        if let Ok(terms) = read(&format!("events/{}", self.leader)) {
            let mut config = [0; 3];
            set_all(&terms, &read, &mut config)?;
            leader = Some(config);
        }
        Ok(Event { name: self.name, kind, config, leader, skid: self.skid })
    }
}

/// Sets the terms of an event, such as `event=0xcd,umask=0x1,ldlat=3`.
fn set_all(
    terms: &str,
    read: &impl Fn(&str) -> Result<String, String>,
    config: &mut [u64; 3],
) -> Result<(), String> {
    for term in terms.trim().split(',') {
        let (field, value) = term.split_once('=').unwrap_or((term, "1"));
        let digits = value.strip_prefix("0x");
        let value = digits.map_or_else(|| value.parse(), |digits| u64::from_str_radix(digits, 16));
        let value = value.map_err(|_error| format!("term {term}"))?;
        set(&read(&format!("format/{field}"))?, value, config)?;
    }
    Ok(())
}

/// Puts a value where its format says: `config:8-15,40-47` takes it from its lowest bit on, and
/// whatever was there goes.
fn set(format: &str, mut value: u64, config: &mut [u64; 3]) -> Result<(), String> {
    let strange = || format!("format {format}");
    let (word, ranges) = format.trim().split_once(':').ok_or_else(strange)?;
    let word = match word {
        "config" => 0,
        "config1" => 1,
        "config2" => 2,
        _ => return Err(strange()),
    };
    for range in ranges.split(',') {
        let (low, high) = range.split_once('-').unwrap_or((range, range));
        let bit = |text: &str| text.parse().ok().filter(|bit: &u32| *bit < 64).ok_or_else(strange);
        let (low, high) = (bit(low)?, bit(high)?);
        for at in low..=high {
            config[word] = config[word] & !(1 << at) | (value & 1) << at;
            value >>= 1;
        }
    }
    if value == 0 { Ok(()) } else { Err(strange()) }
}

#[cfg(test)]
mod tests {
    use perf_event::data::endian::Native;
    use perf_event::data::parse::{ParseConfig, Parser};

    use super::*;

    fn of(bits: u64) -> Accesses {
        let bytes = bits.to_ne_bytes();
        let config = ParseConfig::<Native>::default();
        answered(Some(Parser::new(&bytes[..], config).parse().unwrap()))
    }

    /// Values as `arch/x86/events/intel/ds.c` and `arch/x86/events/amd/ibs.c` put them together,
    /// from the bits of `union perf_mem_data_src`.
    #[test]
    fn the_data_source_says_what_answered() {
        const LOAD: u64 = 2;
        const HIT: u64 = 2 << 5;
        const L3: u64 = 0x40 << 5;
        const LOC_RAM: u64 = 0x80 << 5;
        const REM_RAM1: u64 = 0x100 << 5;
        const REM_CCE1: u64 = 0x400 << 5;
        const NUM_RAM: u64 = 0xd << 33;
        const REMOTE: u64 = 1 << 37;
        let local = Accesses { local: 1, ..Accesses::default() };
        let remote = Accesses { remote: 1, ..Accesses::default() };
        let other = Accesses { other: 1, ..Accesses::default() };
        assert_eq!(of(LOAD | HIT | LOC_RAM), local);
        assert_eq!(of(LOAD | HIT | REM_RAM1), remote);
        assert_eq!(of(LOAD | HIT | REM_RAM1 | NUM_RAM | REMOTE), remote);
        assert_eq!(of(LOAD | NUM_RAM), local);
        assert_eq!(of(LOAD | NUM_RAM | REMOTE), remote);
        assert_eq!(of(LOAD | HIT | L3), other);
        assert_eq!(of(LOAD | HIT | REM_CCE1 | REMOTE), other);
        assert_eq!(of(0), other);
        assert_eq!(answered(None), other);
    }

    #[test]
    fn a_value_goes_where_its_format_says() {
        let mut config = [0; 3];
        set("config:0-7\n", 0xcd, &mut config).unwrap();
        set("config:8-15,40-47\n", 0x1_02, &mut config).unwrap();
        set("config1:0-15", 128, &mut config).unwrap();
        set("config:16", 1, &mut config).unwrap();
        assert_eq!(config, [0x0100_0001_02cd, 128, 0]);
        // What the user sets replaces what the event says.
        set("config1:0-15", 3, &mut config).unwrap();
        assert_eq!(config[1], 3);
        for (format, value) in
            [("config:0-3", 16), ("config3:0", 1), ("config", 1), ("config:64", 1)]
        {
            let error = set(format, value, &mut config).unwrap_err();
            assert!(error.contains(format), "{error}");
        }
    }

    /// A copy of what sysfs says on three machines, in short.
    fn machine(name: &str, files: &[(&str, &str)]) -> Result<Event, HardwareError> {
        let root = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        for (file, text) in files {
            let path = root.join(DEVICES).join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let found = find(&root);
        let _ = fs::remove_dir_all(&root);
        found
    }

    const INTEL: [(&str, &str); 5] = [
        ("cpu/type", "4\n"),
        ("cpu/events/mem-loads", "event=0xcd,umask=0x1,ldlat=3\n"),
        ("cpu/format/event", "config:0-7\n"),
        ("cpu/format/umask", "config:8-15\n"),
        ("cpu/format/ldlat", "config1:0-15\n"),
    ];

    #[test]
    fn the_event_is_found_in_sysfs() {
        let event = machine("intel", &INTEL).unwrap();
        assert_eq!((event.name, event.kind), ("cpu/mem-loads", 4));
        assert_eq!((event.config, event.leader), ([0x1cd, SLOW, 0], None));

        let aux = ("cpu/events/mem-loads-aux", "event=0x03,umask=0x82\n");
        let newer: Vec<_> = INTEL.into_iter().chain([aux]).collect();
        assert_eq!(machine("newer", &newer).unwrap().leader, Some([0x8203, 0, 0]));

        let amd = [
            ("cpu/type", "4\n"),
            ("ibs_op/type", "9\n"),
            ("ibs_op/format/cnt_ctl", "config:19\n"),
            ("ibs_op/format/l3missonly", "config:16\n"),
        ];
        let event = machine("amd", &amd).unwrap();
        assert_eq!((event.name, event.kind, event.config), ("ibs_op", 9, [1 << 16, 0, 0]));
        assert_eq!(machine("older", &amd[..3]).unwrap().config, [0; 3]);
    }

    #[test]
    fn a_machine_without_such_a_pmu_is_named() {
        assert!(matches!(machine("none", &[("cpu/type", "4\n")]), Err(HardwareError::NoPmu)));
        let error = machine("strange", &INTEL[..4]).unwrap_err().to_string();
        assert!(error.contains("cpu/mem-loads") && error.contains("format/ldlat"), "{error}");
    }
}
