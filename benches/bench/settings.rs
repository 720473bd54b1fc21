//! How much is measured.

use std::env;
use std::time::{Duration, Instant};

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Films of the catalogue.
    pub films: usize,
    /// Films of a second, larger catalogue, if there is to be one.
    pub large: Option<usize>,
}

/// Up to this many films a run is a small one, which is over in a few minutes.
const SMALL: usize = 50_000;

impl Settings {
    /// Reads `BENCH_FILMS` and `BENCH_LARGE`.
    pub fn from_env() -> Self {
        Self { films: number("BENCH_FILMS").unwrap_or(200_000), large: number("BENCH_LARGE") }
    }

    /// Measures one after the other up to three times, as often as there is time for.
    pub fn repeat(&self, mut measure: impl FnMut()) {
        let started = Instant::now();
        let (seconds, least) = self.by_size((10, 1), (150, 2));
        for round in 0..3 {
            if round < least || started.elapsed() < Duration::from_secs(seconds) {
                measure();
            }
        }
    }

    /// How many of its documents show how many connections the engine needs to be at its limit.
    pub fn sweep_documents(&self) -> usize {
        self.by_size(self.films / 4, self.films)
    }

    /// How often writers are measured with triggers and without.
    pub fn writer_rounds(&self) -> usize {
        self.by_size(2, 6)
    }

    /// How long 100 edits a second go on.
    pub fn steady_edits(&self) -> Duration {
        Duration::from_secs(self.by_size(5, 30))
    }

    /// How many edits are read back one at a time.
    pub fn single_edits(&self) -> usize {
        self.by_size(40, 100)
    }

    /// How long nothing is done.
    pub fn idle(&self) -> Duration {
        Duration::from_secs(self.by_size(5, 60))
    }

    /// Seconds of one run of pgbench.
    pub fn pgbench_seconds(&self) -> u64 {
        self.by_size(1, 5)
    }

    /// Rows that one statement updates, and links that one inserts.
    pub fn bulk_rows(&self) -> usize {
        (self.films / 2).min(100_000)
    }

    /// How many documents go over a slow line.
    pub fn slow_documents(&self) -> usize {
        self.by_size(2_500, 20_000)
    }

    /// Titles that change in one statement.
    pub fn titles(&self) -> usize {
        (self.films / 2).min(5_000)
    }

    fn by_size<T>(&self, small: T, full: T) -> T {
        if self.films <= SMALL { small } else { full }
    }
}

fn number(name: &str) -> Option<usize> {
    let text = env::var(name).ok().filter(|text| !text.is_empty())?;
    let number: usize = text.parse().unwrap_or_else(|_| panic!("{name} is not a number: `{text}`"));
    assert!(number >= 1_000, "{name} is too small to measure anything: {number}");
    Some(number)
}
