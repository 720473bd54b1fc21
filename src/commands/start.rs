//! `etl start`: keeps the index in step until told to end.
//!
//! This is the loop around [`crate::sync::step`]: who leads, the pauses, and what is told. Everything
//! that must be right is in the step.

mod failures;

use std::thread;
use std::time::{Duration, Instant};

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};
use log::{info, warn};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use self::failures::Failures;
use crate::backoff::Backoff;
use crate::config::{Bytes, Count, ElasticsearchArgs, Mistakes, Pause, PostgresArgs};
use crate::elasticsearch::Elasticsearch;
use crate::error::Error;
use crate::postgres::migrations::check_current;
use crate::postgres::state::load_state;
use crate::postgres::work::load_work;
use crate::postgres::{DatabaseUrl, lock};
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
        failures: Failures::new(settings.until_idle),
        limits: settings.limits,
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
    failures: Failures,
    /// What is sent at a time: less than the settings say after a request that took too long.
    limits: Limits,
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
                self.failures.end();
            }
            match done {
                Step::Progress { documents } => {
                    self.limits = self.limits.after_success(settings.limits);
                    session.set_limits(self.limits);
                    progress.add(started, documents, || session.count_pending());
                }
                Step::Partial { documents, failure } => {
                    progress.add(started, documents, || session.count_pending());
                    self.failures.pause_after_part(documents, failure)?;
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
        Some(lock::Holder { application_name, seconds, .. }) => {
            info!("standing by: another process leads ({application_name}, for {seconds} s)");
        }
        None => info!("standing by: another process has just led"),
    }
}
