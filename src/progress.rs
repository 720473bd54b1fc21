//! How a long load is told: a bar on a terminal, a line every few seconds elsewhere. And the log,
//! whose lines must not run into the bar.

use std::io::{self, IsTerminal, Write};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use env_logger::{Env, Target};
use indicatif::{MultiProgress, ProgressBar, ProgressFinish, ProgressStyle};
use log::{LevelFilter, info};

use crate::error::Error;

/// The part of the terminal that belongs to the bar.
static TERMINAL: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// How often a load is told of where there is no terminal.
const REPORT: Duration = Duration::from_secs(5);

/// A load that takes less than this is not worth a bar.
const BAR_AFTER: Duration = Duration::from_secs(1);

/// Starts logging to the standard error, at the level of `RUST_LOG` or `info`, and `debug` at most.
pub fn init_logging() {
    env_logger::Builder::from_env(Env::default().default_filter_or("info"))
        .target(Target::Pipe(Box::new(AboveBar)))
        .write_style(if io::stderr().is_terminal() {
            env_logger::WriteStyle::Always
        } else {
            env_logger::WriteStyle::Never
        })
        .init();
    // Below debug, ureq writes out whole requests, with what proves who we are.
    log::set_max_level(log::max_level().min(LevelFilter::Debug));
}

/// Writes lines of the log above the bar.
struct AboveBar;

impl Write for AboveBar {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        TERMINAL.suspend(|| io::stderr().write_all(line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// What is told of the work since nothing was pending.
#[derive(Debug, Default)]
pub struct Progress {
    documents: usize,
    load: Option<Load>,
}

/// A stretch of work without a pause.
#[derive(Debug)]
struct Load {
    started: Instant,
    told: Instant,
    documents: usize,
    /// Made when the load turns out to be long; with how many documents are expected in all.
    bar: Option<(ProgressBar, usize)>,
}

impl Progress {
    /// Begins with nothing to tell.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns how many documents were sent in all.
    #[must_use]
    pub fn documents(&self) -> usize {
        self.documents
    }

    /// Tells of a step that has sent documents. `count_pending` is asked once a load, if it is a long
    /// one.
    pub fn add(
        &mut self,
        started: Instant,
        documents: usize,
        count_pending: impl FnOnce() -> Result<u64, Error>,
    ) {
        self.documents += documents;
        let now = Instant::now();
        let load = self.load.get_or_insert(Load { started, told: now, documents: 0, bar: None });
        load.documents += documents;
        if load.bar.is_none() && load.started.elapsed() >= BAR_AFTER {
            // A guess is enough, and a failure will show in the next step.
            let pending = usize::try_from(count_pending().unwrap_or(0)).unwrap_or(0);
            load.bar = Some((new_bar(load.documents + pending), load.documents + pending));
        }
        if let Some((bar, expected)) = &load.bar {
            bar.set_position(load.documents as u64);
            bar.set_message(load.describe(*expected));
            if load.told.elapsed() >= REPORT && bar.is_hidden() {
                load.told = now;
                info!("{}", load.describe(*expected));
            }
        }
    }

    /// Tells that nothing is pending any more.
    pub fn finish(&mut self) {
        if let Some(load) = self.load.take() {
            if let Some((bar, _)) = &load.bar {
                bar.finish_and_clear();
            }
            if load.documents > 0 {
                let seconds = load.started.elapsed().as_secs_f64();
                info!("indexed {} documents in {seconds:.2} s", load.documents);
            }
        }
    }
}

impl Load {
    fn describe(&self, expected: usize) -> String {
        let seconds = self.started.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let (done, left) = (self.documents as f64, expected.saturating_sub(self.documents) as f64);
        let rate = done / seconds;
        format!(
            "indexed {done} of about {expected} documents, {rate:.0} a second, {:.0} s left",
            left / rate
        )
    }
}

fn new_bar(expected: usize) -> ProgressBar {
    // The rate and the time left are our own: the bar comes into being in the middle of a load.
    let style = ProgressStyle::with_template("{bar:30} {msg}").expect("the template is valid");
    let bar = ProgressBar::new(expected as u64).with_finish(ProgressFinish::AndClear);
    let bar = TERMINAL.add(bar);
    bar.set_style(style);
    bar
}
