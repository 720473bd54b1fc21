//! When a run is to end.

use std::cell::Cell;
use std::time::{Duration, Instant};

use log::info;

use crate::error::Error;
use crate::kind::Kind;
use crate::postgres::Connection;
use crate::postgres::rebuild::{Phase, Rebuild, find_retired, load_rebuild};
use crate::postgres::state::{load_bound_kinds, load_state};
use crate::postgres::work::{Scope, load_work};

/// When a run is to end.
pub enum Goal {
    /// Never by itself.
    Never,
    /// When nothing is pending.
    Idle,
    /// When new indices have taken the place of the live ones.
    Rebuilt(Rebuilt),
}

/// New indices that were asked for.
pub struct Rebuilt {
    /// Each with its name.
    indices: Vec<(Kind, String)>,
    asked: Instant,
    told: Cell<Instant>,
    /// Since when the new indices are live.
    switched: Cell<Option<Instant>>,
}

/// How often is told how far a new index is.
const REPORT: Duration = Duration::from_secs(5);

/// The former indices are deleted within this time, unless something is in the way: then it is done later.
const REMOVAL_MAX: Duration = Duration::from_secs(30);

/// Whoever leads sees to a new index within this time, if it keeps documents of this kind and is not in the
/// middle of something long.
const BEGIN_MAX: Duration = Duration::from_secs(120);

impl Goal {
    /// Returns true if the run is to end by itself.
    #[must_use]
    pub fn has_end(&self) -> bool {
        !matches!(self, Self::Never)
    }

    /// Looks whether the goal is reached, after a step of this process.
    ///
    /// # Errors
    ///
    /// Returns an error if it will not be reached.
    pub fn is_reached(
        &self,
        conn: &mut Connection,
        is_idle: bool,
        documents: usize,
    ) -> Result<bool, Error> {
        match self {
            Self::Never => Ok(false),
            Self::Idle => {
                if is_idle {
                    info!("nothing is pending; {documents} documents were sent");
                }
                Ok(is_idle)
            }
            Self::Rebuilt(rebuilt) => rebuilt.is_reached(conn),
        }
    }

    /// Looks whether the goal is reached, while another process leads.
    ///
    /// # Errors
    ///
    /// Returns an error if it will not be reached.
    pub fn is_reached_by_another(
        &self,
        conn: &mut Connection,
        kinds: &[Kind],
    ) -> Result<bool, Error> {
        match self {
            Self::Never => Ok(false),
            Self::Idle => {
                let bound = load_bound_kinds(conn)?;
                // Without an index nothing is done yet: `etl init-es` is at work.
                let scope = Scope { kept: kinds, bound: &bound, in_backlog: &[] };
                let is_idle = kinds.iter().all(|kind| bound.contains(kind))
                    && load_work(conn, scope)?.is_none();
                if is_idle {
                    info!("nothing is pending; another process leads");
                }
                Ok(is_idle)
            }
            Self::Rebuilt(rebuilt) => {
                rebuilt.check_begun(conn)?;
                rebuilt.is_reached(conn)
            }
        }
    }
}

impl Rebuilt {
    /// These new indices were just asked for.
    #[must_use]
    pub fn new(indices: Vec<(Kind, String)>) -> Self {
        Self {
            indices,
            asked: Instant::now(),
            told: Cell::new(Instant::now()),
            switched: Cell::new(None),
        }
    }

    fn is_reached(&self, conn: &mut Connection) -> Result<bool, Error> {
        if !self.is_switched(conn)? {
            return Ok(false);
        }
        let switched = self.switched.get().unwrap_or_else(Instant::now);
        self.switched.set(Some(switched));
        let mut is_cleared = true;
        for (kind, _) in &self.indices {
            is_cleared &= find_retired(conn, *kind, true)?.is_none();
        }
        Ok(is_cleared || switched.elapsed() > REMOVAL_MAX)
    }

    fn is_switched(&self, conn: &mut Connection) -> Result<bool, Error> {
        let mut is_switched = true;
        for (kind, name) in &self.indices {
            match load_rebuild(conn, *kind)?.filter(|rebuild| rebuild.index_name == *name) {
                Some(Rebuild { phase: Phase::Failed, failure, .. }) => {
                    let failure = failure.unwrap_or_default();
                    return Err(Error::State(format!(
                        "the rebuild of {kind} was stopped, the live index is as it was: {failure}"
                    )));
                }
                Some(Rebuild { phase: Phase::Cancelled, .. }) => return Err(cancelled(*kind)),
                Some(rebuild) => {
                    is_switched = false;
                    self.tell(*kind, &rebuild);
                }
                None => {
                    let binding = load_state(conn, *kind)?.binding;
                    if binding.is_none_or(|binding| binding.index_name != *name) {
                        return Err(cancelled(*kind));
                    }
                }
            }
        }
        Ok(is_switched)
    }

    fn tell(&self, kind: Kind, rebuild: &Rebuild) {
        if rebuild.phase == Phase::Filling && self.told.get().elapsed() >= REPORT {
            self.told.set(Instant::now());
            let Rebuild { documents, expected, .. } = rebuild;
            match expected {
                // A table that was never analysed.
                0 => info!("rebuilding {kind}: {documents} documents so far"),
                _ => info!("rebuilding {kind}: {documents} of about {expected} documents"),
            }
        }
    }

    fn check_begun(&self, conn: &mut Connection) -> Result<(), Error> {
        if self.asked.elapsed() < BEGIN_MAX {
            return Ok(());
        }
        for (kind, _) in &self.indices {
            if load_rebuild(conn, *kind)?.is_some_and(|r| r.phase == Phase::Requested) {
                return Err(Error::State(format!(
                    "the process that leads does not begin with the rebuild of {kind} (does it keep {kind}? see its --kinds): start one that does, or drop the rebuild by `etl rebuild --cancel`"
                )));
            }
        }
        Ok(())
    }
}

fn cancelled(kind: Kind) -> Error {
    Error::State(format!("the rebuild of {kind} was cancelled; the live index is as it was"))
}
