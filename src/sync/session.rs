//! A term of the leader: one connection, one epoch, one private write alias for each index.
//!
//! After any failure the term is over and a new one begins, with a new epoch and new aliases, so
//! that nothing of the old one can do harm any more, however late it arrives.

use std::ops::Range;
use std::time::{Duration, Instant};

use log::debug;

use crate::elasticsearch::Elasticsearch;
use crate::elasticsearch::bulk::{BulkPart, Outcome};
use crate::elasticsearch::index::Index;
use crate::elasticsearch::settings::IndexSettings;
use crate::error::Error;
use crate::kind::Kind;
use crate::postgres::lock::{Lock, find_holder};
use crate::postgres::pending::count_pending;
use crate::postgres::rebuild::{Phase, Rebuild, load_rebuild};
use crate::postgres::state::{self, Binding, end_loading};
use crate::postgres::work::{Work, load_work};
use crate::postgres::{Connection, DatabaseUrl, connect};
use crate::sync::batch::Reading;
use crate::sync::binding::{check_index, check_state, replace_write_aliases};
use crate::sync::leader::Leadership;
use crate::sync::limits::Limits;
use crate::sync::page::Page;
use crate::sync::rebuild::{self, Filling};
use crate::sync::touches::Places;

/// How often the engine is asked whether the indices are still those of the state …
const BINDING_CHECK: Duration = Duration::from_secs(2);

/// … and how many times as long as its answer took we wait at least: an engine that is slow to answer
/// is to spend its time on documents.
const BINDING_CHECK_SHARE: u32 = 10;

/// All that a step needs.
pub struct Session<'a> {
    pub(super) conn: Connection,
    pub(super) elasticsearch: &'a Elasticsearch,
    pub(super) limits: Limits,
    pub(super) epoch: i64,
    /// The kinds that have an index, also those that are not kept.
    pub(super) bound: Vec<Kind>,
    pub(super) places: Places,
    kept: Vec<Kept>,
    leadership: &'a Leadership,
    next_binding_check: Instant,
}

/// A kind whose index is kept in step.
struct Kept {
    kind: Kind,
    binding: Binding,
    reading: Reading,
    /// A new index that is filled beside the live one.
    filling: Option<Filling>,
    /// What the index is to have once it is filled for the first time.
    settings_after_load: Option<IndexSettings>,
}

/// Where a request goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// To the live index, and to the new one if there is one: an operation counts as done when both have
    /// done it.
    Live,
    /// To the new index alone.
    New,
}

impl Kept {
    fn index_names(&self) -> impl Iterator<Item = &str> {
        let new = self.filling.as_ref().map(|filling| &*filling.index_name);
        [Some(&*self.binding.index_name), new].into_iter().flatten()
    }
}

impl<'a> Session<'a> {
    /// Begins a term: looks whether state, database and engine fit, moves the epoch, and replaces the
    /// private write aliases.
    ///
    /// # Errors
    ///
    /// Returns an error if they do not fit, or if either side fails. Nothing has been sent then.
    pub fn begin(
        url: &DatabaseUrl,
        elasticsearch: &'a Elasticsearch,
        leadership: &'a Leadership,
        kinds: &[Kind],
        limits: Limits,
    ) -> Result<Self, Error> {
        let mut conn = connect(url, "etl")?;
        if !leadership.is_confirmed(&mut conn)? {
            return Err(lost_lead());
        }
        let mut kept = Vec::new();
        for kind in kinds.iter().copied() {
            let filling = rebuild::prepare(&mut conn, elasticsearch, kind)?;
            let binding = match check_state(&mut conn, elasticsearch, kind) {
                Err(Error::IndexLost { .. }) if find_holder(&mut conn, Lock::Setup)?.is_some() => {
                    return Err(Error::Rival("`etl init-es` is at work".to_owned()));
                }
                result => result?,
            };
            let settings_after_load = None;
            kept.push(Kept {
                kind,
                binding,
                reading: Reading::default(),
                filling,
                settings_after_load,
            });
        }
        let epoch = state::move_epoch(&mut conn)?;
        for kept in &mut kept {
            // After the epoch was moved: what changes from now on moves it again.
            let state = state::load_state(&mut conn, kept.kind)?;
            let rebuild = load_rebuild(&mut conn, kept.kind)?;
            let is_prepared = match rebuild.filter(|rebuild| rebuild.phase != Phase::Failed) {
                Some(Rebuild { phase: Phase::Filling, index_name, .. }) => {
                    kept.filling.as_ref().is_some_and(|filling| filling.index_name == index_name)
                }
                // Asked for only just now.
                Some(_) => false,
                None => kept.filling.is_none(),
            };
            if !is_prepared || state.binding.as_ref() != Some(&kept.binding) {
                return Err(Error::Rival(
                    "the state is being changed by another command".to_owned(),
                ));
            }
            if state.is_loading {
                kept.settings_after_load = state.settings.as_deref().map(IndexSettings::from_text);
            }
        }
        let names: Vec<&str> = kept.iter().flat_map(Kept::index_names).collect();
        replace_write_aliases(&mut conn, elasticsearch, &names, epoch)?;
        debug!("term {epoch} of {} begins", names.join(", "));
        Ok(Self {
            bound: state::load_bound_kinds(&mut conn)?,
            conn,
            elasticsearch,
            limits,
            epoch,
            kept,
            places: Places::default(),
            leadership,
            next_binding_check: Instant::now() + BINDING_CHECK,
        })
    }

    /// Sends as much at a time from now on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Counts the rows that are pending.
    ///
    /// # Errors
    ///
    /// Returns an error if a statement fails.
    pub fn count_pending(&mut self) -> Result<u64, Error> {
        let mut rows = 0;
        for kind in self.kinds() {
            rows += count_pending(&mut self.conn, kind)?;
        }
        Ok(rows)
    }

    /// Returns the connection, for a look at the state.
    pub fn conn(&mut self) -> &mut Connection {
        &mut self.conn
    }

    /// Returns the kinds that are kept.
    pub(super) fn kinds(&self) -> Vec<Kind> {
        self.kept.iter().map(|kept| kept.kind).collect()
    }

    /// Returns the indices that documents of a kind go to, the live one first.
    pub(super) fn index_names(&self, kind: Kind) -> Vec<String> {
        self.kept[self.place_of(kind)].index_names().map(str::to_owned).collect()
    }

    /// Returns the new index of a kind.
    pub(super) fn filling(&mut self, kind: Kind) -> &mut Option<Filling> {
        let place = self.place_of(kind);
        &mut self.kept[place].filling
    }

    /// Returns the index of a kind that is kept.
    pub(super) fn index_name(&self, kind: Kind) -> &str {
        &self.kept[self.place_of(kind)].binding.index_name
    }

    /// Returns where the reading of a kind that is kept has come to.
    pub(super) fn reading(&mut self, kind: Kind) -> &mut Reading {
        self.conn_and_reading(kind).1
    }

    /// Returns both at once.
    pub(super) fn conn_and_reading(&mut self, kind: Kind) -> (&mut Connection, &mut Reading) {
        let place = self.place_of(kind);
        (&mut self.conn, &mut self.kept[place].reading)
    }

    fn place_of(&self, kind: Kind) -> usize {
        let place = self.kept.iter().position(|kept| kept.kind == kind);
        place.expect("only kinds that are kept are worked on")
    }

    /// Nothing is left to be done.
    pub(super) fn end_of_queues(&mut self) -> Result<(), Error> {
        for kind in self.kinds() {
            self.reading(kind).end_of_queue();
            self.end_loading(kind)?;
        }
        Ok(())
    }

    /// Looks for work. Returns nothing if the term is over, because a command has asked for something.
    pub(super) fn load_work(&mut self) -> Result<Option<Work>, Error> {
        let kinds = self.kinds();
        let work = load_work(&mut self.conn, &kinds, &self.bound)?;
        if work.epoch == self.epoch {
            return Ok(Some(work));
        }
        if self.leadership.is_confirmed(&mut self.conn)? {
            return Ok(None);
        }
        Err(Error::Rival("the state was taken over by another process".to_owned()))
    }

    /// Gives an index its settings once it has been filled for the first time.
    pub(super) fn end_loading(&mut self, kind: Kind) -> Result<(), Error> {
        let place = self.place_of(kind);
        if let Some(settings) = &self.kept[place].settings_after_load {
            let name = &self.kept[place].binding.index_name;
            self.elasticsearch.save_settings(name, settings)?;
            self.elasticsearch.refresh(name)?;
            end_loading(&mut self.conn, kind)?;
            self.kept[place].settings_after_load = None;
        }
        Ok(())
    }

    /// Makes sure that this process still leads.
    pub(super) fn check_leadership(&self) -> Result<(), Error> {
        if self.leadership.is_held() { Ok(()) } else { Err(lost_lead()) }
    }

    /// Makes sure every now and then that the indices are still those that the stamps speak of: what
    /// goes through a private alias would notice that its index is gone, but not that people search
    /// another one.
    pub(super) fn check_binding_now_and_then(&mut self) -> Result<(), Error> {
        let asked = Instant::now();
        if asked < self.next_binding_check {
            return Ok(());
        }
        for Kept { kind, binding, .. } in &self.kept {
            check_index(self.elasticsearch, *kind, binding)?;
        }
        self.next_binding_check =
            Instant::now() + BINDING_CHECK.max(asked.elapsed() * BINDING_CHECK_SHARE);
        Ok(())
    }

    /// Sends some operations of a page, in halves if they are too many for the engine. Returns an outcome for
    /// each, in the same order. One that is too large by itself is rejected.
    pub(super) fn send_all(
        &mut self,
        kind: Kind,
        target: Target,
        page: &Page,
        range: Range<usize>,
    ) -> Result<Vec<Outcome>, Error> {
        let body = page.body.part(range.clone());
        match self.send(kind, target, body) {
            Err(Error::Elasticsearch(err)) if err.is_too_large() => (),
            result => return result,
        }
        if range.len() == 1 {
            let bytes = body.len();
            return Ok(vec![Outcome::Rejected {
                error_type: "content_too_long".to_owned(),
                reason: format!("the document of {bytes} bytes is larger than the engine takes"),
            }]);
        }
        let middle = range.start + range.len() / 2;
        let mut outcomes = self.send_all(kind, target, page, range.start..middle)?;
        outcomes.extend(self.send_all(kind, target, page, middle..range.end)?);
        Ok(outcomes)
    }

    /// Sends operations through the private write aliases of a kind. Returns an outcome for each.
    pub(super) fn send(
        &mut self,
        kind: Kind,
        target: Target,
        body: BulkPart<'_>,
    ) -> Result<Vec<Outcome>, Error> {
        let names = self.index_names(kind);
        let [live, new @ ..] = names.as_slice() else { unreachable!("there is a live index") };
        if target == Target::New {
            let new = new.first().expect("only a kind that is rebuilt has a new index");
            return self.send_to(new, body);
        }
        let mut outcomes = self.send_to(live, body)?;
        for new in new {
            let others = self.send_to(new, body)?;
            if let Some(refusal) = find_refusal(&outcomes, &others) {
                rebuild::give_up(&mut self.conn, self.elasticsearch, kind, new, &refusal)?;
                return Err(Error::Rival(format!("the rebuild of {kind} was stopped")));
            }
            outcomes = outcomes.into_iter().zip(others).map(|(a, b)| a.and(b)).collect();
        }
        Ok(outcomes)
    }

    fn send_to(&self, index_name: &str, body: BulkPart<'_>) -> Result<Vec<Outcome>, Error> {
        // Last, right before sending: a process that was frozen must not send when it wakes up.
        self.check_leadership()?;
        let alias = Index::write_alias(index_name, self.epoch);
        Ok(self.elasticsearch.bulk(&alias, body, self.limits.timeout)?)
    }
}

/// Finds what the new index refuses although the live one has it.
fn find_refusal(live: &[Outcome], new: &[Outcome]) -> Option<String> {
    live.iter().zip(new).find_map(|outcomes| match outcomes {
        (Outcome::Acknowledged, Outcome::Rejected { error_type, reason }) => {
            Some(format!("it refuses a document: {error_type}: {reason}"))
        }
        _ => None,
    })
}

fn lost_lead() -> Error {
    Error::Rival("the lead was lost: the session that held its lock has ended".to_owned())
}
