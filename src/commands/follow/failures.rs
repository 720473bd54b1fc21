//! What is done about failures: they are told, waited after, or given up on.

use std::thread;
use std::time::{Duration, Instant};

use log::{Level, log};

use crate::backoff::Backoff;
use crate::error::{self, Error};
use crate::postgres;

/// How long to wait at most for a server that is away: it is back for at most so long before we notice.
const AWAY_PACE: Duration = Duration::from_secs(1);

/// How long to wait at most for an engine that has too much to do, and after something that only a
/// person can mend.
const SLOW_PACE: Duration = Duration::from_secs(10);

/// How often the same failure is told.
const FAILURE_REPORT: Duration = Duration::from_secs(30);

/// The failures since all was well.
pub struct Failures {
    until_idle: bool,
    backoff: Backoff,
    /// The one that was told last, without its numbers and causes, and when.
    told: Option<(String, Instant)>,
    /// A step has been done since the start.
    has_worked: bool,
    /// Of statements, in a row, without a step in between.
    strikes: u32,
    /// Steps in a row in which the engine took nothing, for no reason that we know.
    fruitless: u32,
}

impl Failures {
    /// There was none yet. A run until idle ends with one that only a person can mend.
    pub fn new(until_idle: bool) -> Self {
        Self {
            until_idle,
            backoff: Backoff::new(),
            told: None,
            has_worked: false,
            strikes: 0,
            fruitless: 0,
        }
    }

    /// All is well again.
    pub fn end(&mut self) {
        self.has_worked = true;
        self.strikes = 0;
        self.fruitless = 0;
        self.backoff = Backoff::new();
        self.told = None;
    }

    /// Waits after a step that failed for some documents alone. The term goes on.
    ///
    /// # Errors
    ///
    /// Returns the failure if the run is to end.
    pub fn pause_after_part(&mut self, documents: usize, failure: Error) -> Result<(), Error> {
        const FRUITLESS_MAX: u32 = 20;
        if documents > 0 {
            self.has_worked = true;
            self.fruitless = 0;
            // The pauses are for the engine, and only one that is busy needs them.
            if !failure.is_busy() {
                self.backoff = Backoff::new();
            }
        } else if !failure.is_busy() {
            self.fruitless += 1;
        }
        if self.until_idle && self.fruitless >= FRUITLESS_MAX {
            return Err(Error::State(format!(
                "giving up after {FRUITLESS_MAX} attempts: {}",
                error::chain(&failure)
            )));
        }
        self.pause_after(failure)
    }

    /// Logs what failed and waits, or gives up on what only a person can mend.
    ///
    /// # Errors
    ///
    /// Returns the failure if the run is to end.
    pub fn pause_after(&mut self, err: Error) -> Result<(), Error> {
        let (pause, level) = if err.is_transient() || self.may_pass(&err) {
            let ceiling = if err.is_busy() { SLOW_PACE } else { AWAY_PACE };
            (self.backoff.pause(ceiling), Level::Warn)
        } else if self.until_idle || !self.has_worked {
            return Err(err);
        } else {
            (SLOW_PACE, Level::Error)
        };
        self.tell(level, &err, pause);
        thread::sleep(pause);
        Ok(())
    }

    /// Logs a failure, but the same one not again and again: a server may be away for a night.
    fn tell(&mut self, level: Level, err: &Error, pause: Duration) {
        // Neither its numbers (an epoch, a count) nor its causes make another failure of it.
        let kind = err.to_string().replace(|c: char| c.is_ascii_digit(), "");
        let is_known = self
            .told
            .as_ref()
            .is_some_and(|(told, at)| *told == kind && at.elapsed() < FAILURE_REPORT);
        let level = if is_known { Level::Debug } else { level };
        log!(level, "next attempt in {} ms: {}", pause.as_millis(), error::chain(err));
        if !is_known {
            self.told = Some((kind, Instant::now()));
        }
    }

    /// Returns true if a statement failed, and not yet again and again. It may be for a table that is
    /// being altered, or a deadlock of others; Diesel does not tell these from a missing right.
    fn may_pass(&mut self, err: &Error) -> bool {
        const STRIKES_MAX: u32 = 5;
        self.strikes += 1;
        matches!(err, Error::Postgres(postgres::Error::Query { .. })) && self.strikes < STRIKES_MAX
    }
}
