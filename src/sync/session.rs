//! A term of the leader: one connection, one epoch, one private write alias for each index.
//!
//! After any failure the term is over and a new one begins, with a new epoch and new aliases, so
//! that nothing of the old one can do harm any more, however late it arrives.

use std::thread;
use std::time::{Duration, Instant};

use log::debug;

use crate::elasticsearch::Elasticsearch;
use crate::elasticsearch::settings::IndexSettings;
use crate::error::Error;
use crate::kind::Kind;
use crate::postgres::lock::{Lock, find_holder};
use crate::postgres::pending::{Position, count_pending};
use crate::postgres::state::{self, Binding, end_loading};
use crate::postgres::work::{Scope, Work, load_recent_work, load_work};
use crate::postgres::{Connection, DatabaseUrl, Timestamp, connect};
use crate::sync::batch::Reading;
use crate::sync::binding::{bound, check_identity, check_indices, replace_write_aliases};
use crate::sync::leader::{Leadership, lost_lead};
use crate::sync::limits::Limits;
use crate::sync::rebuild::{self, Filling};
use crate::sync::senders::Senders;
use crate::sync::sending::Sent;
use crate::sync::touches::Places;

/// How often the engine is asked whether the indices are still those of the state …
const BINDING_CHECK: Duration = Duration::from_secs(2);

/// … and how many times as long as its answer took we wait at least: an engine that is slow to answer
/// is to spend its time on documents.
const BINDING_CHECK_SHARE: u32 = 10;

/// For so long an idle process looks only for what was touched lately, before it looks for all there is.
const QUICK_LOOKS: Duration = Duration::from_secs(1);

/// All that a step needs.
pub struct Session<'a> {
    pub(super) conn: Connection,
    pub(super) elasticsearch: &'a Elasticsearch,
    pub(super) limits: Limits,
    pub(super) epoch: i64,
    /// The kinds that have an index, also those that are not kept.
    pub(super) bound: Vec<Kind>,
    pub(super) places: Places,
    pub(super) senders: &'a Senders,
    /// The requests that are open, in the order in which they were handed out.
    pub(super) open: Vec<Sent>,
    kept: Vec<Kept>,
    pub(super) leadership: &'a Leadership,
    next_binding_check: Instant,
    /// When it was last looked for all the work there is, by PostgreSQL's clock.
    looked_at: Timestamp,
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
    /// The index that was live before a rebuild is still to be deleted.
    has_retired: bool,
    /// The number of the last request that had documents of this kind.
    last_request: u64,
}

impl Kept {
    fn load(conn: &mut Connection, kind: Kind, filling: Option<Filling>) -> Result<Self, Error> {
        // Not the identity of either side once more: an index of another one is not found here.
        let state = state::load_state(conn, kind)?;
        let binding = unless_init_es_is_at_work(conn, bound(kind, state.binding))?;
        let has_retired = state.former_index.is_some();
        let settings = state.settings.filter(|_| state.is_loading);
        let settings_after_load = settings.as_deref().map(IndexSettings::from_text);
        Ok(Self {
            kind,
            binding,
            reading: Reading::default(),
            filling,
            settings_after_load,
            has_retired,
            last_request: 0,
        })
    }

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
        senders: &'a Senders,
        leadership: &'a Leadership,
        kinds: &[Kind],
        limits: Limits,
    ) -> Result<Self, Error> {
        let elasticsearch = senders.elasticsearch();
        let mut conn = connect(url, "etl")?;
        if !leadership.is_confirmed(&mut conn)? {
            return Err(lost_lead());
        }
        // Before anything is changed, here or there.
        for kind in kinds.iter().copied() {
            let identity = check_identity(&mut conn, elasticsearch, kind);
            unless_init_es_is_at_work(&mut conn, identity)?;
        }
        let epoch = state::move_epoch(&mut conn)?;
        // After it: whatever is changed by others from now on moves it again, and ends this term.
        let mut kept = Vec::new();
        for kind in kinds.iter().copied() {
            let filling = rebuild::prepare(&mut conn, url, elasticsearch, kind, epoch)?;
            kept.push(Kept::load(&mut conn, kind, filling)?);
        }
        let are_there = check_indices(elasticsearch, &bindings_of(&kept));
        unless_init_es_is_at_work(&mut conn, are_there)?;
        let names: Vec<&str> = kept.iter().flat_map(Kept::index_names).collect();
        replace_write_aliases(&mut conn, elasticsearch, &names, epoch)?;
        debug!("term {epoch} of {} begins", names.join(", "));
        Ok(Self {
            bound: state::load_bound_kinds(&mut conn)?,
            conn,
            elasticsearch,
            senders,
            open: Vec::new(),
            limits,
            epoch,
            kept,
            places: Places::default(),
            leadership,
            next_binding_check: Instant::now() + BINDING_CHECK,
            looked_at: Position::START.touched_at,
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

    /// Returns the same, beginning with the one that has waited longest: they share the requests that may be open.
    pub(super) fn kinds_in_turn(&self) -> Vec<Kind> {
        let mut kept: Vec<&Kept> = self.kept.iter().collect();
        kept.sort_by_key(|kept| kept.last_request);
        kept.into_iter().map(|kept| kept.kind).collect()
    }

    /// Notes which request a kind has had last.
    pub(super) fn note_turn(&mut self, kind: Kind, request: u64) {
        let place = self.place_of(kind);
        self.kept[place].last_request = request;
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
        let in_backlog: Vec<Kind> =
            kinds.iter().copied().filter(|kind| self.reading(*kind).is_in_backlog()).collect();
        let scope = Scope { kept: &kinds, bound: &self.bound, in_backlog: &in_backlog };
        let work = load_work(&mut self.conn, scope)?;
        if work.epoch == self.epoch {
            self.looked_at = work.looked_at;
            return Ok(Some(work));
        }
        if self.leadership.is_confirmed(&mut self.conn)? {
            return Ok(None);
        }
        Err(Error::Rival("the state was taken over by another process".to_owned()))
    }

    /// Waits until there is something new to do, with so long a pause between two looks. After a second at most it is
    /// to be looked for all there is.
    ///
    /// # Errors
    ///
    /// Returns an error if a statement fails.
    pub fn wait_for_work(&mut self, pause: Duration) -> Result<(), Error> {
        let kinds = self.kinds();
        let scope = Scope { kept: &kinds, bound: &self.bound, in_backlog: &[] };
        let started = Instant::now();
        loop {
            thread::sleep(pause);
            if started.elapsed() >= QUICK_LOOKS {
                return Ok(());
            }
            let work = load_recent_work(&mut self.conn, scope, self.looked_at)?;
            if !work.is_none() || work.epoch != self.epoch {
                return Ok(());
            }
        }
    }

    /// Returns whether an index is being filled for the first time.
    pub(super) fn is_loading(&self, kind: Kind) -> bool {
        self.kept[self.place_of(kind)].settings_after_load.is_some()
    }

    /// Gives an index its settings once it has been filled for the first time.
    pub(super) fn end_loading(&mut self, kind: Kind) -> Result<(), Error> {
        let place = self.place_of(kind);
        if let Some(settings) = &self.kept[place].settings_after_load {
            let name = &self.kept[place].binding.index_name;
            self.elasticsearch.save_settings(name, settings)?;
            self.elasticsearch.refresh(name)?;
            end_loading(&mut self.conn, kind, name)?;
            self.kept[place].settings_after_load = None;
        }
        Ok(())
    }

    /// Makes sure that this process still leads.
    pub(super) fn check_leadership(&self) -> Result<(), Error> {
        self.leadership.pulse().check()
    }

    /// Makes sure every now and then that the indices are still those that the stamps speak of: what
    /// goes through a private alias would notice that its index is gone, but not that people search
    /// another one.
    pub(super) fn check_binding_now_and_then(&mut self) -> Result<(), Error> {
        let asked = Instant::now();
        if asked < self.next_binding_check {
            return Ok(());
        }
        check_indices(self.elasticsearch, &bindings_of(&self.kept))?;
        for Kept { kind, has_retired, .. } in &mut self.kept {
            // A switch begins a new term, so there is none that this one does not know of.
            if *has_retired {
                *has_retired =
                    !rebuild::remove_retired(&mut self.conn, self.elasticsearch, *kind, false)?;
            }
        }
        self.next_binding_check =
            Instant::now() + BINDING_CHECK.max(asked.elapsed() * BINDING_CHECK_SHARE);
        Ok(())
    }
}

fn bindings_of(kept: &[Kept]) -> Vec<(Kind, &Binding)> {
    kept.iter().map(|kept| (kept.kind, &kept.binding)).collect()
}

/// An index that is missing while `etl init-es` makes it is no reason to give up.
fn unless_init_es_is_at_work<T>(
    conn: &mut Connection,
    result: Result<T, Error>,
) -> Result<T, Error> {
    match result {
        Err(Error::IndexLost { .. }) if find_holder(conn, Lock::Setup)?.is_some() => {
            Err(Error::Rival("`etl init-es` is at work".to_owned()))
        }
        result => result,
    }
}
