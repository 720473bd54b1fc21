//! What was done: every transaction in words, and counts of everything.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::Instant;

/// So many transactions are kept.
const ENTRIES_MAX: usize = 100_000;

/// What is counted under one heading.
type Counts = BTreeMap<String, u64>;

/// What was done since the start.
pub struct History {
    started: Instant,
    entries: Mutex<VecDeque<Entry>>,
    counts: Mutex<BTreeMap<&'static str, Counts>>,
}

struct Entry {
    began: f64,
    ended: f64,
    who: String,
    text: String,
}

impl History {
    /// Nothing was done yet.
    pub fn new() -> Self {
        Self { started: Instant::now(), entries: Mutex::default(), counts: Mutex::default() }
    }

    /// Seconds since the start.
    pub fn now(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Notes something that began then and ends now.
    pub fn note(&self, began: f64, who: &str, text: String) {
        let mut entries = self.entries.lock().unwrap();
        if entries.len() == ENTRIES_MAX {
            entries.pop_front();
        }
        entries.push_back(Entry { began, ended: self.now(), who: who.to_owned(), text });
    }

    /// Counts one more of this.
    pub fn count(&self, heading: &'static str, what: &str) {
        self.add(heading, what, 1);
    }

    /// Counts some more of this.
    pub fn add(&self, heading: &'static str, what: &str, more: u64) {
        let mut counts = self.counts.lock().unwrap();
        *counts.entry(heading).or_default().entry(what.to_owned()).or_default() += more;
    }

    /// The counts under all headings, one line each.
    pub fn summary(&self) -> String {
        let mut text = String::new();
        for (heading, counts) in &*self.counts.lock().unwrap() {
            let total: u64 = counts.values().sum();
            let _ = write!(text, "  {heading}: {total} (");
            let each: Vec<String> = counts.iter().map(|(what, n)| format!("{what} {n}")).collect();
            let _ = writeln!(text, "{})", each.join(", "));
        }
        text
    }

    /// The last entries that name one of these, and all faults in between.
    pub fn concerning(&self, words: &[String], last: usize) -> String {
        let entries = self.entries.lock().unwrap();
        let concerns = |entry: &&Entry| {
            let is_wide = ["%WIDE%", "TRUNCATE"].iter().any(|word| entry.text.contains(word));
            is_wide || words.iter().any(|word| entry.text.contains(word))
        };
        let mut found: Vec<&Entry> = entries.iter().rev().filter(concerns).take(last).collect();
        found.reverse();
        let first = found.first().map_or(0.0, |entry| entry.began);
        let mut text = String::new();
        let is_fault = |entry: &&Entry| entry.who.starts_with("fault") && entry.ended >= first;
        let mut lines: Vec<&Entry> = entries.iter().filter(is_fault).collect();
        lines.extend(found.into_iter().filter(|entry| !entry.who.starts_with("fault")));
        lines.sort_by(|a, b| a.ended.total_cmp(&b.ended));
        for Entry { began, ended, who, text: what } in lines {
            let _ = writeln!(text, "  {began:9.3}–{ended:9.3} {who}: {what}");
        }
        text
    }
}
