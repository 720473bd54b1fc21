//! A new index beside the live one, filled while the live one is kept in step, until it takes its place.
//!
//! What is asked for is a row of `etl.rebuild` ([`crate::postgres::rebuild`]); whoever leads sees to it, and
//! goes on where another has stopped. The order makes it safe to kill:
//!
//! 1. The new index is made at the beginning of a term, after its epoch ([`prepare`]): nothing that the live
//!    index alone has acknowledged is stamped any more. From then on whatever is sent goes to both indices,
//!    and a stamp, or a forgotten tombstone, needs the acknowledgement of both ([`Session::send`]).
//! 2. All rows are read in the order of their ids, and their documents sent to the new index alone, with the
//!    versions of the rows: whatever changes meanwhile has a higher one ([`advance`]). How far that has come is
//!    noted after the acknowledgement.
//! 3. The new index is compared with the rows. Then it gets its settings, and the aliases of the live one in one
//!    request ([`finish_switch`]); the state is bound to it last. The former one is deleted some seconds later,
//!    when no search is at work in it any more ([`remove_retired`]).
//!
//! Whatever only the new index refuses ends this, and never the live side. No index is deleted that can be live:
//! it has lost its name in `etl.rebuild` before, under the epoch of the term.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use log::{error, info, warn};
use uuid::Uuid;

use crate::elasticsearch::Elasticsearch;
use crate::elasticsearch::bulk::Outcome;
use crate::elasticsearch::index::{AliasAction, Index};
use crate::elasticsearch::settings::IndexSettings;
use crate::error::{Error, chain};
use crate::kind::Kind;
use crate::postgres::pending::{PageLimits, Selection, load_random};
use crate::postgres::rebuild::{
    Phase, Rebuild, begin_filling, begin_switching, count_rows, fail, find_retired,
    finish_switching, forget_rebuild, forget_retired, load_rebuild, note_trouble,
    put_off_switching, rename, save_filled,
};
use crate::postgres::stamp::{AsRead, find_unsettled, touch_unchanged};
use crate::postgres::{Connection, Timestamp, moment_of, state};
use crate::sync::answers::add_failure;
use crate::sync::batch::Batch;
use crate::sync::new_index::{create, name_of_new, parse_mapping};
use crate::sync::page::{Page, load_page};
use crate::sync::session::Session;

/// How many documents are compared before the switch.
const SAMPLE: usize = 1_000;

/// An index that is being filled.
#[derive(Debug, Clone)]
pub(super) struct Filling {
    pub index_name: String,
    /// The documents of all rows up to this one have been sent. `None`: none yet.
    filled_to: Option<Uuid>,
    /// What it is to have once it is filled.
    settings: IndexSettings,
    /// Since when it is.
    full_since: Option<Instant>,
    /// What makes visible what was sent.
    refresh: Option<Arc<JoinHandle<()>>>,
    /// How often it did not have the right number of documents.
    miscounts: u32,
    /// The documents that were not what the database gives when they were last looked at, and how often in a row.
    different: HashMap<Uuid, u32>,
    /// The engine did not let it take the place of the live one: not before this is tried again.
    put_off_until: Option<Instant>,
}

/// What one part of a rebuild has done.
#[derive(Debug)]
pub(super) enum Progress {
    /// Documents were sent, or put off.
    Filled(Batch),
    /// The state has moved: the term is over.
    TermOver,
}

/// Sees to what was asked for, at the beginning of a term: makes a new index, removes one that is not wanted any
/// more, ends a switch that was begun. Returns the index that is to be filled.
///
/// Nothing has been sent in this term yet, and what was read in others can no longer be stamped: from here on
/// whatever is done has to be done in both indices.
///
/// # Errors
///
/// Returns an error if either side fails; what was asked for still is, then.
pub(super) fn prepare(
    conn: &mut Connection,
    elasticsearch: &Elasticsearch,
    kind: Kind,
    epoch: i64,
) -> Result<Option<Filling>, Error> {
    let Some(rebuild) = load_rebuild(conn, kind)? else { return Ok(None) };
    let name = &rebuild.index_name;
    match rebuild.phase {
        Phase::Requested => make(conn, elasticsearch, kind, epoch, &rebuild)?,
        Phase::Filling => {
            let index = elasticsearch.find_index(name)?;
            if index.map(|index| index.uuid) != rebuild.index_uuid {
                let failure = format!("the new index {name} was deleted or replaced");
                give_up(conn, elasticsearch, kind, epoch, name, &failure)?;
            }
        }
        Phase::Switching => drop(finish_switch(conn, elasticsearch, kind, &rebuild)?),
        // Neither is ever live again, whoever looks at it when.
        Phase::Cancelled => {
            if remove(elasticsearch, name) {
                forget_rebuild(conn, kind)?;
                info!("removed the new index {name}");
            }
        }
        Phase::Failed => drop(remove(elasticsearch, name)),
    }
    let rebuild = load_rebuild(conn, kind)?.filter(|rebuild| rebuild.phase == Phase::Filling);
    Ok(rebuild.map(|rebuild| Filling {
        index_name: rebuild.index_name,
        filled_to: rebuild.filled_to,
        settings: IndexSettings::from_text(&rebuild.settings.unwrap_or_default()),
        full_since: None,
        refresh: None,
        miscounts: 0,
        different: HashMap::new(),
        put_off_until: None,
    }))
}

/// Removes an index that is not wanted. Returns whether it is gone: that it cannot be removed for now (a snapshot is
/// taken of it, a right is missing) keeps nobody from anything.
fn remove(elasticsearch: &Elasticsearch, name: &str) -> bool {
    let result = elasticsearch.delete_index(name);
    if let Err(err) = &result {
        warn!("the index {name} is not needed, and could not be removed: {}", chain(err));
    }
    result.is_ok()
}

fn make(
    conn: &mut Connection,
    elasticsearch: &Elasticsearch,
    kind: Kind,
    epoch: i64,
    rebuild: &Rebuild,
) -> Result<(), Error> {
    let mut name = rebuild.index_name.clone();
    if elasticsearch.find_index(&name)?.is_some() {
        // A process that was killed has made it, and not noted that. It is not removed before it has lost its
        // name here: who was frozen must not remove what is live when it wakes up.
        let fresh = name_of_new(elasticsearch, kind);
        if !rename(conn, kind, epoch, &fresh)? {
            return Ok(());
        }
        remove(elasticsearch, &name);
        name = fresh;
    }
    let settings = match create(elasticsearch, &name, kind, parse_mapping(rebuild.mapping.clone())?)
    {
        Err(err) if !err.is_transient() => {
            return give_up(conn, elasticsearch, kind, epoch, &name, &chain(&err));
        }
        result => result?,
    };
    let Some(Index { uuid, .. }) = elasticsearch.find_index(&name)? else {
        return Err(Error::Rival(format!("the index {name} was deleted by somebody else")));
    };
    if begin_filling(conn, kind, epoch, &uuid, &settings.to_text())? {
        info!("made the index {name}, which is filled beside the live one");
    } else {
        // Cancelled, or somebody else leads and makes another one.
        remove(elasticsearch, &name);
    }
    Ok(())
}

/// Gives a new index up: the live one alone counts from now on. Does nothing if this term is over.
pub(super) fn give_up(
    conn: &mut Connection,
    elasticsearch: &Elasticsearch,
    kind: Kind,
    epoch: i64,
    index_name: &str,
    failure: &str,
) -> Result<(), Error> {
    if fail(conn, kind, epoch, index_name, failure)? {
        error!("the rebuild of {kind} was stopped, the live index is as it was: {failure}");
        remove(elasticsearch, index_name);
    }
    Ok(())
}

/// Goes on with the new index of a kind: sends one page to it, or compares it and lets it take the place of
/// the live one. `is_quiet`: nothing else was left to be done.
///
/// # Errors
///
/// Returns an error if either side fails. The next term goes on from there.
pub(super) fn advance(
    session: &mut Session,
    kind: Kind,
    is_quiet: bool,
) -> Result<Progress, Error> {
    let Some(filling) = session.filling(kind).clone() else {
        return Ok(Progress::Filled(Batch::default()));
    };
    let limits = PageLimits { rows: session.limits.batch_rows, bytes: session.limits.bulk_bytes };
    let selection = Selection::All(filling.filled_to);
    let page = load_page(&mut session.conn, kind, &selection, limits, |_| true)?;
    let Some(last) = page.rows.last().map(|row| row.id) else {
        return wait_and_finish(session, kind, filling, is_quiet);
    };
    let mut answers = Fill::default();
    let mut first = 0;
    while first < page.rows.len() {
        let end = page.body.end_of_part(first, limits.bytes);
        let outcomes = session.fill(kind, &page, first..end)?;
        for (row, outcome) in page.rows[first..end].iter().zip(outcomes) {
            answers.add(*row, outcome);
        }
        first = end;
    }
    settle_page(session, kind, filling, &page, last, answers)
}

/// Acts on what the new index has answered to a page, and notes how far it is filled.
fn settle_page(
    session: &mut Session,
    kind: Kind,
    filling: Filling,
    page: &Page,
    last: Uuid,
    answers: Fill,
) -> Result<Progress, Error> {
    let Session { conn, elasticsearch, epoch, .. } = session;
    if let Some(refusal) = answers.refusal(conn, kind)? {
        give_up(conn, elasticsearch, kind, *epoch, &filling.index_name, &refusal)?;
        return Ok(Progress::TermOver);
    }
    match answers.failure {
        Some(failure) => {
            if note_trouble(conn, kind)? {
                let failure = format!("it has taken nothing for minutes: {}", chain(&failure));
                give_up(conn, elasticsearch, kind, *epoch, &filling.index_name, &failure)?;
                return Ok(Progress::TermOver);
            }
            if !failure.concerns_single_documents() {
                return Err(failure);
            }
            return Ok(Progress::Filled(Batch { failure: Some(failure), ..Batch::default() }));
        }
        None if !touch_unchanged(conn, kind, &answers.conflicts)? => {
            // A writer holds a row that is to be touched: the page is sent once more.
            return Ok(Progress::Filled(Batch::default()));
        }
        None => (),
    }
    // Last, for the same reason as a stamp.
    if !save_filled(conn, kind, *epoch, last, answers.acknowledged)? {
        return Ok(Progress::TermOver);
    }
    *session.filling(kind) = Some(Filling { filled_to: Some(last), ..filling });
    let (acknowledged, settled) = (answers.acknowledged, page.rows.len());
    Ok(Progress::Filled(Batch { acknowledged, settled, ..Batch::default() }))
}

/// What the new index has answered.
#[derive(Debug, Default)]
struct Fill {
    acknowledged: usize,
    /// To be touched past what the new index holds, if they are still as they were read: else a newer
    /// document has been there first, or comes.
    conflicts: Vec<(AsRead, Timestamp)>,
    refused: Vec<(AsRead, String)>,
    failure: Option<Error>,
}

impl Fill {
    fn add(&mut self, row: AsRead, outcome: Outcome) {
        match outcome {
            Outcome::Acknowledged => self.acknowledged += 1,
            Outcome::Rejected { error_type, reason } => {
                self.refused.push((row, format!("{error_type}: {reason}")));
            }
            Outcome::Conflict { engine_version } => match moment_of(engine_version) {
                Some(past) => self.conflicts.push((row, past)),
                None => self.refused.push((row, "it holds the highest version".to_owned())),
            },
            other => add_failure(&mut self.failure, other),
        }
    }

    /// Returns which document the new index refuses that the live one has.
    fn refusal(&self, conn: &mut Connection, kind: Kind) -> Result<Option<String>, Error> {
        let rows: Vec<AsRead> = self.refused.iter().map(|(row, _)| *row).collect();
        let unsettled = find_unsettled(conn, kind, &rows)?;
        let refused = self.refused.iter().find(|(row, _)| !unsettled.contains(&row.id));
        Ok(refused.map(|(row, reason)| {
            format!("it refuses the document of {} {}: {reason}", kind.table(), row.id)
        }))
    }
}

/// Ends the rebuild when there is nothing else to be done, or after a while all the same.
///
/// Links and renamed genres that nobody has looked at yet make documents differ; so does what is written while
/// they are compared. Only a difference that is found again and again is one.
fn wait_and_finish(
    session: &mut Session,
    kind: Kind,
    mut filling: Filling,
    is_quiet: bool,
) -> Result<Progress, Error> {
    const PATIENCE: Duration = Duration::from_secs(3);
    const PUT_OFF: Duration = Duration::from_secs(30);
    let full_since = *filling.full_since.get_or_insert_with(Instant::now);
    let refresh = filling.refresh.get_or_insert_with(|| {
        // It may take the engine seconds, in which edits of the live index are not to wait.
        let (elasticsearch, name) = (session.elasticsearch.clone(), filling.index_name.clone());
        Arc::new(thread::spawn(move || drop(elasticsearch.refresh(&name))))
    });
    let is_refreshing = !refresh.is_finished();
    *session.filling(kind) = Some(filling.clone());
    let is_put_off =
        is_refreshing || filling.put_off_until.is_some_and(|until| Instant::now() < until);
    if is_put_off || !is_quiet && full_since.elapsed() < PATIENCE {
        return Ok(Progress::Filled(Batch::default()));
    }
    let name = filling.index_name.clone();
    match compare(session, kind, &mut filling)? {
        Comparison::Same if finish(session, kind, &filling)? => return Ok(Progress::TermOver),
        Comparison::Same => filling.put_off_until = Some(Instant::now() + PUT_OFF),
        // What was touched is looked at when it is settled again.
        Comparison::Unclear => filling.full_since = Some(Instant::now()),
        Comparison::Different(difference) => {
            let Session { conn, elasticsearch, epoch, .. } = session;
            give_up(conn, elasticsearch, kind, *epoch, &name, &difference)?;
            return Ok(Progress::TermOver);
        }
    }
    *session.filling(kind) = Some(filling);
    Ok(Progress::Filled(Batch::default()))
}

/// Lets the new index take the place of the live one. Returns false if the engine does not let it.
fn finish(session: &mut Session, kind: Kind, filling: &Filling) -> Result<bool, Error> {
    let Session { conn, elasticsearch, epoch, .. } = session;
    // One that is left of the last rebuild: its name is about to be replaced.
    remove_retired(conn, elasticsearch, kind, true)?;
    let state = state::load_state(conn, kind)?;
    let live = state.binding.map(|binding| binding.index_name).unwrap_or_default();
    let present = elasticsearch.load_settings(&live)?;
    let own = filling.settings.clone();
    let settings = match state.settings.filter(|_| !state.is_loading) {
        Some(made_with) => own.with_changes(&present, &IndexSettings::from_text(&made_with)),
        None => own,
    };
    if begin_switching(conn, kind, *epoch, &settings.to_text())?
        && let Some(rebuild) = load_rebuild(conn, kind)?
    {
        return finish_switch(conn, elasticsearch, kind, &rebuild);
    }
    // Cancelled, or somebody else leads.
    Ok(true)
}

/// What a comparison of the new index with the rows has shown.
enum Comparison {
    /// It has what it is to have.
    Same,
    /// Something was different; what was changed meanwhile may be the reason.
    Unclear,
    /// It is wrong, in this way.
    Different(String),
}

/// How often in a row something has to be wrong.
const STRIKES_MAX: u32 = 5;

/// Compares the new index with the rows: the number of documents, which may differ by the rows that are not
/// settled, and the contents of a random sample and of what was different the last time.
fn compare(session: &mut Session, kind: Kind, filling: &mut Filling) -> Result<Comparison, Error> {
    let name = &filling.index_name;
    let before = count_rows(&mut session.conn, kind)?;
    let documents = i64::try_from(session.elasticsearch.count(name)?).unwrap_or(i64::MAX);
    let after = count_rows(&mut session.conn, kind)?;
    let unsettled = before.unsettled.max(after.unsettled);
    let least = before.rows.min(after.rows) - unsettled;
    let most = before.rows.max(after.rows) + unsettled;
    if documents < least || documents > most {
        filling.miscounts += 1;
        if filling.miscounts < STRIKES_MAX {
            return Ok(Comparison::Unclear);
        }
        return Ok(Comparison::Different(format!(
            "it holds {documents} documents, and there are {} rows of {}",
            after.rows,
            kind.table()
        )));
    }
    let mut ids = load_random(&mut session.conn, kind, SAMPLE)?;
    ids.extend(filling.different.keys());
    let compared = ids.len();
    let wrong = find_wrong(session, kind, name, ids)?;
    info!("compared {documents} documents of {kind} by number and {compared} by content");
    // Links and genres that nobody has looked at yet make documents differ. If it is something else, they are
    // right in both indices the next time.
    let past: Vec<(AsRead, Timestamp)> = wrong.iter().map(|row| (*row, row.touched_at)).collect();
    touch_unchanged(&mut session.conn, kind, &past)?;
    let strikes = |row: &AsRead| filling.different.get(&row.id).copied().unwrap_or(0) + 1;
    let was_different = !filling.different.is_empty();
    filling.different = wrong.iter().map(|row| (row.id, strikes(row))).collect();
    let most_strikes = filling.different.iter().max_by_key(|(_, strikes)| **strikes);
    Ok(match most_strikes {
        None => Comparison::Same,
        // Those of the last time are right now.
        Some((_, 1)) if was_different => Comparison::Same,
        Some((id, strikes)) if *strikes >= STRIKES_MAX => Comparison::Different(format!(
            "its document of {} {id} is not what the database gives",
            kind.table()
        )),
        Some(_) => Comparison::Unclear,
    })
}

/// Finds the settled rows whose documents in an index are not what they give.
fn find_wrong(
    session: &mut Session,
    kind: Kind,
    index_name: &str,
    ids: Vec<Uuid>,
) -> Result<Vec<AsRead>, Error> {
    let limits = PageLimits { rows: ids.len(), bytes: session.limits.bulk_bytes };
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let page = load_page(&mut session.conn, kind, &Selection::Ids(ids), limits, |_| true)?;
    let ids: Vec<Uuid> = page.rows.iter().map(|row| row.id).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let stored = session.elasticsearch.load_sources(index_name, &ids)?;
    let differs =
        |place: &usize| stored.get(*place).cloned().flatten() != Some(page.body.document(*place));
    let mut wrong: Vec<AsRead> =
        (0..ids.len()).filter(differs).map(|place| page.rows[place]).collect();
    let unsettled: HashSet<Uuid> = find_unsettled(&mut session.conn, kind, &wrong)?;
    wrong.retain(|row| !unsettled.contains(&row.id));
    Ok(wrong)
}

/// Lets the new index take the place of the live one, as far as that is not done yet. Returns false if the engine
/// does not let it.
fn finish_switch(
    conn: &mut Connection,
    elasticsearch: &Elasticsearch,
    kind: Kind,
    rebuild: &Rebuild,
) -> Result<bool, Error> {
    let name = &rebuild.index_name;
    let Some(binding) = state::load_state(conn, kind)?.binding else {
        // `etl init-es` has just unbound it, and ended this.
        return Ok(true);
    };
    let live = binding.index_name;
    let alias = elasticsearch.alias(kind);
    let indices = elasticsearch.load_indices(&format!("{name},{live}"))?;
    let Some(new) = indices.iter().find(|index| index.name == *name) else {
        warn!("the new index {name} was deleted by somebody else");
        put_off_switching(conn, kind, name)?;
        return Ok(false);
    };
    if !new.aliases.contains_key(&alias) {
        let settings = IndexSettings::from_text(rebuild.settings.as_deref().unwrap_or_default());
        elasticsearch.save_settings(name, &settings)?;
        elasticsearch.refresh(name)?;
        let old = indices.iter().find(|index| index.name == live);
        match elasticsearch.update_aliases(&switch_actions(new, old, alias)) {
            // While a snapshot is taken of it, for instance, an index cannot be deleted.
            Err(err) if !err.is_transient() => {
                warn!("the new index {name} cannot take the place of {live} yet: {}", chain(&err));
                put_off_switching(conn, kind, name)?;
                return Ok(false);
            }
            result => result?,
        }
    }
    finish_switching(conn, kind, name)?;
    info!("the index {name} has taken the place of {live}");
    Ok(true)
}

/// Everything that has to happen at once: the new index gets the aliases of the old one, with their filters and
/// routings.
fn switch_actions(new: &Index, old: Option<&Index>, alias: String) -> Vec<AliasAction> {
    let mut actions = Vec::new();
    let mut is_added = false;
    if let Some(old) = old {
        let private = Index::write_alias_stem(&old.name);
        for (name, properties) in &old.aliases {
            actions.push(AliasAction::Remove { index: old.name.clone(), alias: name.clone() });
            if !name.starts_with(&private) {
                is_added |= *name == alias;
                let (index, alias) = (new.name.clone(), name.clone());
                actions.push(AliasAction::Add { index, alias, properties: properties.clone() });
            }
        }
    }
    if !is_added {
        actions.push(AliasAction::add(&new.name, alias));
    }
    actions
}

/// Deletes the index that was live before a rebuild. Not together with the switch: searches may be at work in it.
/// Returns whether it was deleted.
///
/// # Errors
///
/// Returns an error if PostgreSQL fails. That the engine does not delete it (a snapshot is taken of it) is no
/// failure: it is tried again.
pub(super) fn remove_retired(
    conn: &mut Connection,
    elasticsearch: &Elasticsearch,
    kind: Kind,
    at_once: bool,
) -> Result<bool, Error> {
    let Some(name) = find_retired(conn, kind, at_once)?.filter(|name| remove(elasticsearch, name))
    else {
        return Ok(false);
    };
    forget_retired(conn, kind, &name)?;
    info!("removed the former index {name}");
    Ok(true)
}
