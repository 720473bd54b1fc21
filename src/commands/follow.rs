//! The loop around [`crate::sync::step`]: who leads, the pauses, what is told, and when it ends.
//!
//! `etl start` and `etl rebuild` are this. Everything that must be right is in the step.

mod failures;
mod goal;

use std::thread;
use std::time::{Duration, Instant};

use log::{info, warn};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use self::failures::Failures;
pub use self::goal::{Goal, Rebuilt};
use crate::backoff::Backoff;
use crate::config::Pace;
use crate::elasticsearch::Elasticsearch;
use crate::error::Error;
use crate::kind::Kind;
use crate::postgres::migrations::{check_current, check_rights};
use crate::postgres::{DatabaseUrl, lock};
use crate::progress::Progress;
use crate::sync::leader::{Candidate, Election, Leadership};
use crate::sync::limits::Limits;
use crate::sync::new_index::replace_lost_index;
use crate::sync::rate::Rate;
use crate::sync::senders::Senders;
use crate::sync::session::Session;
use crate::sync::{Step, step};

/// What is kept in step, and until when.
pub struct Follow {
    /// Where the rows come from.
    pub url: DatabaseUrl,
    /// Where the documents go.
    pub elasticsearch: Elasticsearch,
    /// Which documents.
    pub kinds: Vec<Kind>,
    /// How much is sent, and how often is looked for changes.
    pub pace: Pace,
    /// When to end.
    pub goal: Goal,
    /// A lost index is made anew.
    pub rebuild_lost_index: bool,
}

/// How often a standby tries to take the lead. At first more often: the session of a leader that has just
/// been killed may take a moment to end.
const STANDBY_PAUSE: Duration = Duration::from_secs(1);

/// For so long after a change the next one is looked for more often …
const LIVELY: Duration = Duration::from_secs(2);

/// … by this factor: who edits a row is likely to edit another one.
const LIVELY_LOOKS: u32 = 5;

/// How often a standby says who leads.
const STANDBY_REPORT: Duration = Duration::from_secs(30);

impl Follow {
    /// Leads or stands by until the goal is reached.
    ///
    /// # Errors
    ///
    /// Returns an error if something is in the way that only a person can mend: at the start, or at any time
    /// if there is a goal. What was not stamped is pending.
    pub fn run(&self) -> Result<(), Error> {
        end_on_signals()?;
        let mut loop_ = Loop {
            follow: self,
            leadership: None,
            failures: Failures::new(self.goal.has_end()),
            limits: self.pace.limits.at_first(),
            senders: Senders::start(
                &self.elasticsearch,
                self.pace.limits.requests_in_all(),
                Rate::new(self.pace.rate),
            ),
        };
        loop {
            match loop_.follow() {
                Ok(()) => return Ok(()),
                Err(err) => {
                    if err.is_timeout() {
                        loop_.limits = loop_.limits.after_timeout();
                    }
                    loop_.failures.pause_after(err)?;
                }
            }
        }
    }

    /// Begins a term, with a new index for each that was lost, if that is allowed.
    fn begin<'a>(
        &'a self,
        senders: &'a Senders,
        leadership: &'a Leadership,
        limits: Limits,
    ) -> Result<Session<'a>, Error> {
        let Self { url, elasticsearch, kinds, .. } = self;
        // All of them may be lost at once.
        for _ in kinds {
            match Session::begin(url, senders, leadership, kinds, limits) {
                Err(Error::IndexLost { kind, what }) if self.rebuild_lost_index => {
                    warn!("{what}: making a new one");
                    replace_lost_index(url, elasticsearch, kind)?;
                }
                result => return result,
            }
        }
        Session::begin(url, senders, leadership, kinds, limits)
    }

    /// Does a step. An index that was lost ends the term, if the next one may begin with a new one.
    fn step(&self, session: &mut Session<'_>) -> Result<Step, Error> {
        match step(session) {
            Err(Error::IndexLost { .. }) if self.rebuild_lost_index => Ok(Step::TermOver),
            result => result,
        }
    }

    /// Waits until this process leads. Returns nothing if the goal is reached without that.
    fn wait_for_lead(&self) -> Result<Option<Leadership>, Error> {
        let mut candidate = Candidate::connect(&self.url)?;
        check_current(candidate.conn())?;
        check_rights(candidate.conn())?;
        let mut reported: Option<Instant> = None;
        let mut pauses = Backoff::new();
        loop {
            let leader = match candidate.try_lead()? {
                Election::Won(leadership) => return Ok(Some(leadership)),
                Election::Lost { candidate: next, leader } => {
                    candidate = next;
                    leader
                }
            };
            if reported.is_none_or(|at| at.elapsed() >= STANDBY_REPORT) {
                report_leader(leader.as_ref());
                reported = Some(Instant::now());
            }
            if self.goal.is_reached_by_another(candidate.conn(), &self.kinds)? {
                return Ok(None);
            }
            thread::sleep(pauses.pause(STANDBY_PAUSE));
        }
    }
}

/// Ends the process on SIGTERM and SIGINT, wherever it is: that is safe anywhere.
///
/// A handler is needed all the same. As process 1 of a container we would not end without one, and
/// the exit code is to be 0.
fn end_on_signals() -> Result<(), Error> {
    let what = || "the signals".to_owned();
    let mut signals =
        Signals::new([SIGTERM, SIGINT]).map_err(|source| Error::Io { what: what(), source })?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            let name = if signal == SIGTERM { "SIGTERM" } else { "SIGINT" };
            info!("ending on {name}; what is not stamped stays pending");
            std::process::exit(0);
        }
    });
    Ok(())
}

/// What is kept from one failure to the next.
struct Loop<'a> {
    follow: &'a Follow,
    leadership: Option<Leadership>,
    failures: Failures,
    /// What is sent at a time: less than the settings say after a request that took too long, and when the engine
    /// has too much to do.
    limits: Limits,
    senders: Senders,
}

impl Loop<'_> {
    /// Waits for the lead, and does steps. Returns when the goal is reached.
    fn follow(&mut self) -> Result<(), Error> {
        let leadership = match self.leadership.take().filter(Leadership::is_held) {
            Some(leadership) => leadership,
            None => match self.follow.wait_for_lead()? {
                Some(leadership) => leadership,
                None => return Ok(()),
            },
        };
        let result = self.lead(&leadership);
        self.leadership = Some(leadership);
        result
    }

    fn lead(&mut self, leadership: &Leadership) -> Result<(), Error> {
        let Follow { pace: Pace { limits, poll_interval, .. }, goal, .. } = self.follow;
        let mut session = self.follow.begin(&self.senders, leadership, self.limits)?;
        let mut progress = Progress::new();
        let mut last_change: Option<Instant> = None;
        loop {
            let started = Instant::now();
            let done = self.follow.step(&mut session)?;
            if !matches!(done, Step::Sent | Step::Partial { .. }) {
                self.failures.end();
            }
            let is_idle = matches!(done, Step::Idle);
            match done {
                Step::Progress { documents } => {
                    if documents > 0 {
                        self.limits = self.limits.after_success(*limits);
                        session.set_limits(self.limits);
                    }
                    progress.add(started, documents, || session.count_pending());
                    last_change = Some(Instant::now());
                }
                Step::Partial { documents, failure } => {
                    if failure.is_busy() {
                        self.limits = self.limits.after_busy();
                        session.set_limits(self.limits);
                    }
                    progress.add(started, documents, || session.count_pending());
                    self.failures.pause_after_part(documents, failure)?;
                }
                Step::TermOver => {
                    session = self.follow.begin(&self.senders, leadership, self.limits)?;
                }
                Step::Sent => (),
                Step::Idle => progress.finish(),
                Step::Blocked => thread::sleep(*poll_interval),
            }
            if goal.is_reached(session.conn(), is_idle, progress.documents())? {
                progress.finish();
                return Ok(());
            }
            if is_idle {
                let is_lively = last_change.is_some_and(|at| at.elapsed() < LIVELY);
                session.wait_for_work(*poll_interval / if is_lively { LIVELY_LOOKS } else { 1 })?;
            }
        }
    }
}

fn report_leader(leader: Option<&lock::Holder>) {
    match leader {
        Some(lock::Holder { application_name, seconds, .. }) => {
            info!("standing by: another process leads ({application_name}, for {seconds} s)");
        }
        None => info!("standing by: another process has just led"),
    }
}
