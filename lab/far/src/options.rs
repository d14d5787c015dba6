//! What does xtask tell the plugin, and how does it arrive?
//!
//! QEMU hands over words like `key=value`. A comma would end a word, so the
//! parts of a list are joined by `+`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// The machine as the plugin has to know it.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Where the counts go.
    pub counts: PathBuf,
    /// A miss to another node takes so many times as long as one to the CPU's own: 1 or more.
    pub factor: f64,
    /// How long a miss to the CPU's own node takes.
    pub local: Duration,
    /// Size of each CPU's cache in KiB.
    pub cache_kib: usize,
    /// The node of each CPU.
    pub cpus: Vec<usize>,
    /// Memory, as the emulator numbers its addresses towards plugins.
    pub memory: Vec<Range>,
}

/// Addresses of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub start: u64,
    /// The first address behind it.
    pub end: u64,
    pub node: usize,
}

/// A word that the plugin does not understand, or one that is missing.
#[derive(Debug, PartialEq, Eq)]
pub struct Bad(String);

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Bad {}

impl Options {
    /// # Errors
    /// A key is missing or unknown, or its value is no such thing or out of range.
    pub fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Result<Self, Bad> {
        let (mut counts, mut factor, mut local) = (None, None, None);
        let (mut cache, mut cpus, mut memory) = (None, None, None);
        for word in words {
            let (key, value) =
                word.split_once('=').ok_or_else(|| Bad(format!("no value in {word:?}")))?;
            match key {
                "counts" => counts = Some(PathBuf::from(value)),
                "factor" => factor = Some(number(key, value)?),
                "local" => local = Some(Duration::from_nanos(number(key, value)?)),
                "cache" => cache = Some(number(key, value)?),
                "cpus" => cpus = Some(list(value, |part| number(key, part))?),
                "memory" => memory = Some(list(value, range)?),
                _ => return Err(Bad(format!("no option {key:?}"))),
            }
        }
        let missing = |key: &'static str| move || Bad(format!("{key} is missing"));
        let options = Self {
            counts: counts.ok_or_else(missing("counts"))?,
            factor: factor.ok_or_else(missing("factor"))?,
            local: local.ok_or_else(missing("local"))?,
            cache_kib: cache.ok_or_else(missing("cache"))?,
            cpus: cpus.ok_or_else(missing("cpus"))?,
            memory: memory.ok_or_else(missing("memory"))?,
        };
        if !(options.factor >= 1.0 && options.factor.is_finite()) {
            return Err(Bad(format!("factor {} is below 1", options.factor)));
        }
        Ok(options)
    }

    /// Nodes with CPUs or memory; those in between count as well.
    #[must_use]
    pub fn nodes(&self) -> usize {
        let memory = self.memory.iter().map(|range| range.node);
        self.cpus.iter().copied().chain(memory).max().map_or(0, |last| last + 1)
    }

    /// The node of an address; none for what is no node's memory.
    #[must_use]
    pub fn node_of(&self, address: u64) -> Option<usize> {
        let range = self.memory.iter().find(|range| (range.start..range.end).contains(&address));
        range.map(|range| range.node)
    }
}

/// As a list for QEMU, whose own commas are doubled.
impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpus: Vec<String> = self.cpus.iter().map(ToString::to_string).collect();
        let memory: Vec<String> = self
            .memory
            .iter()
            .map(|range| format!("{}-{}-{}", range.start, range.end, range.node))
            .collect();
        write!(
            f,
            "counts={},factor={},local={},cache={},cpus={},memory={}",
            self.counts.display().to_string().replace(',', ",,"),
            self.factor,
            self.local.as_nanos(),
            self.cache_kib,
            cpus.join("+"),
            memory.join("+")
        )
    }
}

fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<T, Bad> {
    value.parse().map_err(|_same| Bad(format!("{key}: {value:?} is no such number")))
}

fn list<T>(value: &str, part: impl Fn(&str) -> Result<T, Bad>) -> Result<Vec<T>, Bad> {
    value.split('+').map(part).collect()
}

fn range(text: &str) -> Result<Range, Bad> {
    match text.split('-').collect::<Vec<_>>()[..] {
        [start, end, node] => Ok(Range {
            start: number("memory", start)?,
            end: number("memory", end)?,
            node: number("memory", node)?,
        }),
        _ => Err(Bad(format!("memory: {text:?} is not START-END-NODE"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options {
            counts: "/tmp/a".into(),
            factor: 1.7,
            local: Duration::from_nanos(600),
            cache_kib: 256,
            cpus: vec![0, 0, 1, 1],
            memory: vec![
                Range { start: 0, end: 1 << 30, node: 0 },
                Range { start: 1 << 32, end: 5 << 30, node: 1 },
            ],
        }
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let text = options().to_string();
        assert_eq!(Options::parse(text.split(',')), Ok(options()));
    }

    #[test]
    fn bad_words_are_named() {
        let with = |word: &str| {
            let text = options().to_string();
            let error = Options::parse(text.split(',').chain([word])).unwrap_err();
            error.to_string()
        };
        assert!(with("factor=0.5").contains("below 1"));
        assert!(with("factor=NaN").contains("below 1"));
        assert!(with("local=-3").contains("local"));
        assert!(with("speed=3").contains("speed"));
        assert!(with("memory=1-2").contains("START-END-NODE"));
        assert!(with("cache").contains("no value"));
        assert_eq!(
            Options::parse(std::iter::empty()).unwrap_err().to_string(),
            "counts is missing"
        );
    }

    #[test]
    fn an_address_between_the_nodes_is_nobodys() {
        let options = options();
        assert_eq!(options.nodes(), 2);
        assert_eq!(options.node_of((1 << 30) - 1), Some(0));
        assert_eq!(options.node_of(1 << 30), None);
        assert_eq!(options.node_of(1 << 32), Some(1));
    }
}
