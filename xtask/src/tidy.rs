//! What do compiler and clippy not see?
//!
//! Files that grew too long, work left for later, paths of one machine. Looks
//! at the files that git knows, or would add.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::paths::{quiet, root};

const LONGEST_FILE: usize = 500;

pub(crate) fn check() -> Result<()> {
    let mut list = Command::new("git");
    list.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(root());
    let list = quiet(&mut list).context("ask git for the files")?;
    let mut faults = Vec::new();
    for name in list.lines() {
        // Gone from the folder but not yet from git, or not text: nothing to read.
        if let Ok(text) = fs::read_to_string(root().join(name)) {
            faults.extend(faults_of(name, &text));
        }
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

fn faults_of(name: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let rust = name.ends_with(".rs");
    let length = text.lines().count();
    if rust && length > LONGEST_FILE {
        faults.push(format!("{name}: {length} lines, at most {LONGEST_FILE}: split it"));
    }
    let forbidden = forbidden();
    for (number, line) in text.lines().enumerate() {
        let found = forbidden
            .iter()
            .find(|(word, code_only, _)| (rust || !code_only) && line.contains(word.as_str()));
        if let Some((word, _, why)) = found {
            faults.push(format!("{name}:{}: {word:?}: {why}", number + 1));
        }
    }
    faults
}

/// Words with whether they count in code only, and what to do about them.
///
/// Put together from parts, or this file would find itself.
fn forbidden() -> Vec<(String, bool, &'static str)> {
    let later = ["TO", "FIX", "XX"].into_iter().zip(["DO", "ME", "X"]);
    let mut words: Vec<_> = later
        .map(|(head, tail)| (format!("{head}{tail}"), true, "do it now, or open an issue"))
        .collect();
    words.push((format!("{}!(", "todo"), true, "write it"));
    words.push((format!("#[{}", "ignore"), true, "a test that does not run proves nothing"));
    for folder in ["home", "work", "root"] {
        let path = format!("\"/{folder}/");
        words.push((path, true, "a path of one machine"));
    }
    for folder in ["home", "work"] {
        words.push((format!(" /{folder}/"), false, "a path of one machine"));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_named_with_its_line() {
        let later = format!("fn a() {{}}\n// {}{}: more\n", "TO", "DO");
        let faults = faults_of("a.rs", &later);
        assert_eq!(faults.len(), 1);
        assert!(faults[0].starts_with("a.rs:2: "), "{faults:?}");
        let path = format!("see /{}/someone/x", "home");
        assert_eq!(faults_of("README.md", &path).len(), 1);
        assert!(faults_of("a.rs", "fn a() {}\n").is_empty());
    }

    #[test]
    fn a_file_is_too_long_only_past_the_limit() {
        assert!(faults_of("a.rs", &"x\n".repeat(LONGEST_FILE)).is_empty());
        assert_eq!(faults_of("a.rs", &"x\n".repeat(LONGEST_FILE + 1)).len(), 1);
        assert!(faults_of("a.md", &"x\n".repeat(LONGEST_FILE + 1)).is_empty());
    }
}
