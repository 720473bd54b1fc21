//! A new index beside the live one, filled while the live one is kept in step, until it takes its place.
//!
//! What is asked for is a row of `etl.rebuild` ([`crate::postgres::rebuild`]); whoever leads sees to it, and
//! goes on where another has stopped. The order makes it safe to kill:
//!
//! 1. The new index is made at the beginning of a term ([`prepare`]). From then on whatever is sent goes to
//!    both indices, and a stamp, or a forgotten tombstone, needs the acknowledgement of both
//!    ([`Session::send`]). The epoch was moved in between, so nothing that the live index alone has
//!    acknowledged is stamped any more.
//! 2. All rows are read in the order of their ids, and their documents sent to the new index alone, with the
//!    versions of the rows: whatever changes meanwhile has a higher one ([`fill`]). How far that has come is
//!    noted after the acknowledgement.
//! 3. The new index is compared with the rows. Then it gets its settings, and the aliases of the live one in one
//!    request ([`finish_switch`]); the state is bound to it last.
//!
//! Whatever only the new index refuses ends this, and never the live side.

use std::collections::HashSet;

use log::{error, info};
use uuid::Uuid;

use crate::elasticsearch::Elasticsearch;
use crate::elasticsearch::bulk::Outcome;
use crate::elasticsearch::index::{AliasAction, Index};
use crate::elasticsearch::settings::IndexSettings;
use crate::error::Error;
use crate::kind::Kind;
use crate::postgres::pending::{PageLimits, Selection, load_random};
use crate::postgres::rebuild::{
    Phase, Rebuild, begin_filling, begin_switching, count_rows, fail, finish_switching,
    forget_rebuild, load_rebuild, save_filled,
};
use crate::postgres::stamp::{AsRead, find_unsettled, touch_unchanged};
use crate::postgres::{Connection, Timestamp, moment_of, state};
use crate::sync::answers::add_failure;
use crate::sync::batch::Batch;
use crate::sync::new_index::{create, parse_mapping};
use crate::sync::page::load_page;
use crate::sync::session::{Session, Target};

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
}

/// What one part of a rebuild has done.
#[derive(Debug)]
pub(super) enum Progress {
    /// Documents were sent, or put off.
    Filled(Batch),
    /// The state has moved: the term is over.
    TermOver,
}

/// Sees to what was asked for, at the beginning of a term, before its epoch: makes a new index, removes one that
/// was cancelled, ends a switch that was begun. Returns the index that is to be filled.
///
/// # Errors
///
/// Returns an error if either side fails; what was asked for still is, then.
pub(super) fn prepare(
    conn: &mut Connection,
    elasticsearch: &Elasticsearch,
    kind: Kind,
) -> Result<Option<Filling>, Error> {
    let Some(rebuild) = load_rebuild(conn, kind)? else { return Ok(None) };
    match rebuild.phase {
        Phase::Requested => make(conn, elasticsearch, kind, &rebuild)?,
        Phase::Filling => {
            let index = elasticsearch.find_index(&rebuild.index_name)?;
            if index.map(|index| index.uuid) != rebuild.index_uuid {
                let failure =
                    format!("the new index {} was deleted or replaced", rebuild.index_name);
                give_up(conn, elasticsearch, kind, &rebuild.index_name, &failure)?;
            }
        }
        Phase::Switching => finish_switch(conn, elasticsearch, kind, &rebuild)?,
        Phase::Cancelled => {
            elasticsearch.delete_index(&rebuild.index_name)?;
            forget_rebuild(conn, kind)?;
            info!("removed the new index {}", rebuild.index_name);
        }
        Phase::Failed => (),
    }
    let rebuild = load_rebuild(conn, kind)?.filter(|rebuild| rebuild.phase == Phase::Filling);
    Ok(rebuild.map(|rebuild| Filling {
        index_name: rebuild.index_name,
        filled_to: rebuild.filled_to,
        settings: IndexSettings::from_text(&rebuild.settings.unwrap_or_default()),
    }))
}

fn make(
    conn: &mut Connection,
    elasticsearch: &Elasticsearch,
    kind: Kind,
    rebuild: &Rebuild,
) -> Result<(), Error> {
    let name = &rebuild.index_name;
    // A process that was killed may have made it, and not noted that.
    elasticsearch.delete_index(name)?;
    let settings = match create(elasticsearch, name, kind, parse_mapping(rebuild.mapping.clone())?)
    {
        Err(Error::State(refusal)) => {
            return give_up(conn, elasticsearch, kind, name, &refusal);
        }
        result => result?,
    };
    let Some(Index { uuid, .. }) = elasticsearch.find_index(name)? else {
        return Err(Error::Rival(format!("the index {name} was deleted by somebody else")));
    };
    begin_filling(conn, kind, &uuid, &settings.to_text())?;
    info!("made the index {name}, which is filled beside the live one");
    Ok(())
}

/// Gives a new index up: the live one alone counts from now on.
pub(super) fn give_up(
    conn: &mut Connection,
    elasticsearch: &Elasticsearch,
    kind: Kind,
    index_name: &str,
    failure: &str,
) -> Result<(), Error> {
    fail(conn, kind, failure)?;
    error!("the rebuild of {kind} was stopped, the live index is as it was: {failure}");
    Ok(elasticsearch.delete_index(index_name)?)
}

/// Goes on with the new index of a kind: sends one page to it, or compares it and lets it take the place of
/// the live one.
///
/// # Errors
///
/// Returns an error if either side fails. The next term goes on from there.
pub(super) fn advance(session: &mut Session, kind: Kind) -> Result<Progress, Error> {
    let Some(filling) = session.filling(kind).clone() else {
        return Ok(Progress::Filled(Batch::default()));
    };
    let limits = PageLimits { rows: session.limits.batch_rows, bytes: session.limits.bulk_bytes };
    let selection = Selection::All(filling.filled_to);
    let page = load_page(&mut session.conn, kind, &selection, limits, |_| true)?;
    let Some(last) = page.rows.last().map(|row| row.id) else {
        return finish(session, kind, &filling).map(|()| Progress::TermOver);
    };
    let mut answers = Fill::default();
    let mut first = 0;
    while first < page.rows.len() {
        let end = page.body.end_of_part(first, limits.bytes);
        let outcomes = session.send_all(kind, Target::New, &page, first..end)?;
        for (row, outcome) in page.rows[first..end].iter().zip(outcomes) {
            answers.add(*row, outcome);
        }
        first = end;
    }
    if let Some(refusal) = answers.refusal(&mut session.conn, kind)? {
        give_up(&mut session.conn, session.elasticsearch, kind, &filling.index_name, &refusal)?;
        return Ok(Progress::TermOver);
    }
    touch_unchanged(&mut session.conn, kind, &answers.conflicts)?;
    match answers.failure {
        Some(failure) if !failure.concerns_single_documents() => return Err(failure),
        Some(failure) => {
            return Ok(Progress::Filled(Batch { failure: Some(failure), ..Batch::default() }));
        }
        None => (),
    }
    // Last, for the same reason as a stamp.
    if !save_filled(&mut session.conn, kind, session.epoch, last, answers.acknowledged)? {
        return Ok(Progress::TermOver);
    }
    *session.filling(kind) = Some(Filling { filled_to: Some(last), ..filling });
    let acknowledged = answers.acknowledged;
    Ok(Progress::Filled(Batch { acknowledged, settled: page.rows.len(), ..Batch::default() }))
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

/// Compares the new index with the rows, and lets it take the place of the live one.
fn finish(session: &mut Session, kind: Kind, filling: &Filling) -> Result<(), Error> {
    let name = &filling.index_name;
    if let Some(difference) = compare(session, kind, name)? {
        return give_up(&mut session.conn, session.elasticsearch, kind, name, &difference);
    }
    let Session { conn, elasticsearch, epoch, .. } = session;
    let state = state::load_state(conn, kind)?;
    let live = state.binding.map(|binding| binding.index_name).unwrap_or_default();
    let present = elasticsearch.load_settings(&live)?;
    let settings = match state.settings {
        Some(made_with) if !state.is_loading => {
            filling.settings.clone().with_changes(&present, &IndexSettings::from_text(&made_with))
        }
        _ => filling.settings.clone(),
    };
    if !begin_switching(conn, kind, *epoch, &settings.to_text())? {
        return Ok(());
    }
    let rebuild = load_rebuild(conn, kind)?;
    match rebuild.filter(|rebuild| rebuild.phase == Phase::Switching) {
        Some(rebuild) => finish_switch(conn, elasticsearch, kind, &rebuild),
        None => Ok(()),
    }
}

/// Returns how the new index differs from the rows.
///
/// The number of documents may differ by the rows that are not settled; so may those of a random sample.
fn compare(session: &mut Session, kind: Kind, name: &str) -> Result<Option<String>, Error> {
    let before = count_rows(&mut session.conn, kind)?;
    let documents = i64::try_from(session.elasticsearch.count(name)?).unwrap_or(i64::MAX);
    let after = count_rows(&mut session.conn, kind)?;
    let least = before.rows.min(after.rows) - before.unsettled.max(after.unsettled);
    let most = before.rows.max(after.rows) + before.unsettled.max(after.unsettled);
    if documents < least || documents > most {
        return Ok(Some(format!(
            "it holds {documents} documents, and there are {} rows of {}",
            after.rows,
            kind.table()
        )));
    }
    let ids = load_random(&mut session.conn, kind, SAMPLE)?;
    let limits = PageLimits { rows: SAMPLE, bytes: session.limits.bulk_bytes };
    let page = load_page(&mut session.conn, kind, &Selection::Ids(ids), limits, |_| true)?;
    let ids: Vec<Uuid> = page.rows.iter().map(|row| row.id).collect();
    if ids.is_empty() {
        return Ok(None);
    }
    let stored = session.elasticsearch.load_sources(name, &ids)?;
    let differs =
        |place: &usize| stored.get(*place).cloned().flatten() != Some(page.body.document(*place));
    let different: Vec<AsRead> =
        (0..ids.len()).filter(differs).map(|place| page.rows[place]).collect();
    let unsettled: HashSet<Uuid> = find_unsettled(&mut session.conn, kind, &different)?;
    let wrong = different.iter().find(|row| !unsettled.contains(&row.id));
    info!("compared {documents} documents of {kind} by number and {} by content", ids.len());
    Ok(wrong.map(|row| {
        format!("its document of {} {} is not what the database gives", kind.table(), row.id)
    }))
}

/// Lets the new index take the place of the live one, as far as that is not done yet.
fn finish_switch(
    conn: &mut Connection,
    elasticsearch: &Elasticsearch,
    kind: Kind,
    rebuild: &Rebuild,
) -> Result<(), Error> {
    let name = &rebuild.index_name;
    let live = state::load_state(conn, kind)?.binding.map(|binding| binding.index_name);
    let live = live.unwrap_or_default();
    let alias = elasticsearch.alias(kind);
    let indices = elasticsearch.load_indices(&format!("{name},{live}"))?;
    let Some(new) = indices.iter().find(|index| index.name == *name) else {
        let failure = format!("the new index {name} was deleted by somebody else");
        return give_up(conn, elasticsearch, kind, name, &failure);
    };
    if !new.aliases.contains_key(&alias) {
        let settings = IndexSettings::from_text(rebuild.settings.as_deref().unwrap_or_default());
        elasticsearch.save_settings(name, &settings)?;
        elasticsearch.refresh(name)?;
        let old = indices.iter().find(|index| index.name == live);
        elasticsearch.update_aliases(&switch_actions(new, old, alias, rebuild.keep_old))?;
    }
    finish_switching(conn, kind)?;
    info!("the index {name} has taken the place of {live}");
    Ok(())
}

/// Everything that has to happen at once: the new index gets the aliases of the old one, with their filters and
/// routings, and the old one goes.
fn switch_actions(
    new: &Index,
    old: Option<&Index>,
    alias: String,
    keep_old: bool,
) -> Vec<AliasAction> {
    let mut actions = Vec::new();
    if let Some(old) = old {
        let private = Index::write_alias_stem(&old.name);
        for (name, properties) in &old.aliases {
            if keep_old {
                actions.push(AliasAction::Remove { index: old.name.clone(), alias: name.clone() });
            }
            if !name.starts_with(&private) {
                let (index, alias) = (new.name.clone(), name.clone());
                actions.push(AliasAction::Add { index, alias, properties: properties.clone() });
            }
        }
        if !keep_old {
            actions.push(AliasAction::Delete { index: old.name.clone() });
        }
    }
    let is_added = |action: &AliasAction| matches!(action, AliasAction::Add { alias: name, .. } if *name == alias);
    if !actions.iter().any(is_added) {
        actions.push(AliasAction::add(&new.name, alias));
    }
    actions
}
