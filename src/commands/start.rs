//! `etl start`: keeps the index in step until told to end.
//!
//! This is the loop around [`crate::sync::step`]: who leads, the pauses, and what is told. Everything
//! that must be right is in the step.

use std::thread;
use std::time::{Duration, Instant};

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};
use log::{Level, info, log, warn};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::backoff::Backoff;
use crate::config::{Bytes, Count, ElasticsearchArgs, Mistakes, Pause, PostgresArgs};
use crate::elasticsearch::Elasticsearch;
use crate::error::{self, Error};
use crate::postgres::migrations::check_current;
use crate::postgres::state::load_state;
use crate::postgres::work::load_work;
use crate::postgres::{self, DatabaseUrl, lock};
use crate::progress::Progress;
use crate::sync::leader::{Candidate, Election, Leadership};
use crate::sync::limits::Limits;
use crate::sync::session::{Session, rebuild_lost_index};
use crate::sync::{Step, step};

/// Settings of `etl start`.
#[derive(Debug, Args)]
pub struct Start {
    /// Where the rows come from.
    #[command(flatten)]
    postgres: PostgresArgs,
    /// Where the documents go.
    #[command(flatten)]
    elasticsearch: ElasticsearchArgs,
    /// Largest number of documents in one bulk request
    #[arg(long, env = "ETL_BATCH_SIZE", value_name = "COUNT", default_value = "1000")]
    batch_size: String,
    /// Size at which a bulk request is full and sent, such as 512KiB or 5MiB
    #[arg(long, env = "ETL_BULK_BYTES", value_name = "SIZE", default_value = "5MiB")]
    bulk_bytes: String,
    /// Pause between two looks for changes while there are none, such as 100ms or 2s
    #[arg(long, env = "ETL_POLL_INTERVAL", value_name = "TIME", default_value = "100ms")]
    poll_interval: String,
    /// End when nothing is left to do, instead of waiting for the next change
    #[arg(long)]
    until_idle: bool,
    /// When the index was deleted, replaced or restored behind our back, make a new one and load everything
    #[arg(long, env = "ETL_REBUILD_LOST_INDEX", value_parser = BoolishValueParser::new(), action = ArgAction::SetTrue)]
    rebuild_lost_index: bool,
}

/// What the settings mean.
struct Settings {
    url: DatabaseUrl,
    elasticsearch: Elasticsearch,
    limits: Limits,
    poll_interval: Duration,
    until_idle: bool,
    rebuild_lost_index: bool,
}

impl Settings {
    /// Begins a term, with a new index if the old one was lost and that is allowed.
    fn begin<'a>(
        &'a self,
        leadership: &'a Leadership,
        limits: Limits,
    ) -> Result<Session<'a>, Error> {
        let Self { url, elasticsearch, .. } = self;
        match Session::begin(url, elasticsearch, leadership, limits) {
            Err(Error::IndexLost(what)) if self.rebuild_lost_index => {
                warn!("{what}: making a new one");
                let name = rebuild_lost_index(url, elasticsearch)?;
                info!("made the index {name}; everything is loaded into it");
                Session::begin(url, elasticsearch, leadership, limits)
            }
            result => result,
        }
    }
}

/// How long to wait at most for a server that is away: it is back for at most so long before we notice.
const AWAY_PACE: Duration = Duration::from_millis(1_500);

/// How long to wait at most for an engine that has too much to do, and after something that only a
/// person can mend.
const SLOW_PACE: Duration = Duration::from_secs(10);

/// How often the same failure is told.
const FAILURE_REPORT: Duration = Duration::from_secs(30);

/// How often a standby tries to take the lead. At first more often: the session of a leader that has just
/// been killed may take a moment to end.
const STANDBY_PAUSE: Duration = Duration::from_secs(1);

/// How often a standby says who leads.
const STANDBY_REPORT: Duration = Duration::from_secs(30);

/// Runs `etl start`. Returns when nothing is pending, if it was asked to; else it does not return.
///
/// # Errors
///
/// Returns an error if the settings are wrong, or if something is in the way that only a person can
/// mend: at the start, or at any time if it was to run until idle. What was not stamped is pending.
pub fn run(args: &Start) -> Result<(), Error> {
    let settings = check(args)?;
    end_on_signals()?;
    let mut loop_ = Loop {
        settings: &settings,
        leadership: None,
        backoff: Backoff::new(),
        told: None,
        limits: settings.limits,
        has_worked: false,
        strikes: 0,
        fruitless: 0,
    };
    loop {
        match loop_.follow() {
            Ok(()) => return Ok(()),
            Err(err) => loop_.pause_after(err)?,
        }
    }
}

fn check(args: &Start) -> Result<Settings, Error> {
    let mut mistakes = Mistakes::default();
    let servers = args.postgres.check(&mut mistakes).zip(args.elasticsearch.check(&mut mistakes));
    let rows: Option<Count> = mistakes.parse("--batch-size (ETL_BATCH_SIZE)", &args.batch_size);
    let bytes: Option<Bytes> = mistakes.parse("--bulk-bytes (ETL_BULK_BYTES)", &args.bulk_bytes);
    let pause: Option<Pause> =
        mistakes.parse("--poll-interval (ETL_POLL_INTERVAL)", &args.poll_interval);
    let values = mistakes.finish(servers.zip(rows.zip(bytes)).zip(pause))?;
    let (((url, engine), (Count(batch_rows), Bytes(bulk_bytes))), Pause(poll_interval)) = values;
    Ok(Settings {
        url,
        elasticsearch: Elasticsearch::new(&engine)?,
        limits: Limits { batch_rows, bulk_bytes, timeout: Limits::TIMEOUT },
        poll_interval,
        until_idle: args.until_idle,
        rebuild_lost_index: args.rebuild_lost_index,
    })
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
    settings: &'a Settings,
    leadership: Option<Leadership>,
    backoff: Backoff,
    /// The failure that was told last, without its numbers and causes, and when.
    told: Option<(String, Instant)>,
    /// What is sent at a time: less than the settings say after a request that took too long.
    limits: Limits,
    /// A step has been done since the start.
    has_worked: bool,
    /// Failures of statements in a row, without a step in between.
    strikes: u32,
    /// Steps in a row in which the engine took nothing, for no reason that we know.
    fruitless: u32,
}

impl Loop<'_> {
    /// Waits for the lead, and does steps. Returns when idle, if that is asked for.
    fn follow(&mut self) -> Result<(), Error> {
        let leadership = match self.leadership.take().filter(Leadership::is_held) {
            Some(leadership) => leadership,
            None => match wait_for_lead(self.settings)? {
                Some(leadership) => leadership,
                None => return Ok(()),
            },
        };
        let result = self.lead(&leadership);
        self.leadership = Some(leadership);
        result
    }

    fn lead(&mut self, leadership: &Leadership) -> Result<(), Error> {
        let settings = self.settings;
        let mut session = settings.begin(leadership, self.limits)?;
        let mut progress = Progress::new();
        loop {
            let started = Instant::now();
            let done = step(&mut session)?;
            if !matches!(done, Step::Partial { .. }) {
                self.note_success();
            }
            match done {
                Step::Progress { documents } => {
                    self.limits = self.limits.after_success(settings.limits);
                    session.set_limits(self.limits);
                    progress.add(started, documents, || session.count_pending());
                }
                Step::Partial { documents, failure } => {
                    progress.add(started, documents, || session.count_pending());
                    self.pause_after_part(documents, failure)?;
                }
                Step::Idle if settings.until_idle => {
                    progress.finish();
                    info!("nothing is pending; {} documents were sent", progress.documents());
                    return Ok(());
                }
                Step::Idle => {
                    progress.finish();
                    thread::sleep(settings.poll_interval);
                }
                Step::Blocked => thread::sleep(settings.poll_interval),
            }
        }
    }

    fn note_success(&mut self) {
        self.has_worked = true;
        self.strikes = 0;
        self.fruitless = 0;
        self.backoff = Backoff::new();
        self.told = None;
    }

    /// Waits after a step that failed for some documents alone. The term goes on.
    fn pause_after_part(&mut self, documents: usize, failure: Error) -> Result<(), Error> {
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
        if self.settings.until_idle && self.fruitless >= FRUITLESS_MAX {
            return Err(Error::State(format!(
                "giving up after {FRUITLESS_MAX} attempts: {}",
                error::chain(&failure)
            )));
        }
        self.pause_after(failure)
    }

    /// Logs what failed and waits, or gives up on what only a person can mend.
    fn pause_after(&mut self, err: Error) -> Result<(), Error> {
        if err.is_timeout() {
            self.limits = self.limits.after_timeout();
        }
        let (pause, level) = if err.is_transient() || self.may_pass(&err) {
            let ceiling = if err.is_busy() { SLOW_PACE } else { AWAY_PACE };
            (self.backoff.pause(ceiling), Level::Warn)
        } else if self.settings.until_idle || !self.has_worked {
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

/// Waits until this process leads. Returns nothing if it is to run until idle, and the leader has
/// nothing left.
fn wait_for_lead(settings: &Settings) -> Result<Option<Leadership>, Error> {
    let mut candidate = Candidate::connect(&settings.url)?;
    check_current(candidate.conn())?;
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
        // Without an index nothing is done yet: `etl init-es` is at work.
        if settings.until_idle
            && load_state(candidate.conn())?.binding.is_some()
            && load_work(candidate.conn())?.is_none()
        {
            info!("nothing is pending; another process leads");
            return Ok(None);
        }
        thread::sleep(pauses.pause(STANDBY_PAUSE));
    }
}

fn report_leader(leader: Option<&lock::Holder>) {
    match leader {
        Some(lock::Holder { application_name, seconds }) => {
            info!("standing by: another process leads ({application_name}, for {seconds} s)");
        }
        None => info!("standing by: another process has just led"),
    }
}
