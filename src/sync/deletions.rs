//! Deletions: what the outbox asks to be removed from an index.

use std::collections::HashSet;

use log::info;
use uuid::Uuid;

use crate::elasticsearch;
use crate::elasticsearch::bulk::{BulkBody, Outcome};
use crate::elasticsearch::search::Held;
use crate::error::Error;
use crate::kind::Kind;
use crate::postgres::outbox::{
    Purge, Tombstone, find_absent, forget, load_purges, load_tombstones, raise_tombstone, revive,
};
use crate::postgres::{flush_wal, moment_of, version_of};
use crate::sync::CHUNK;
use crate::sync::answers::add_failure;
use crate::sync::session::Session;

/// Deletes the documents of deleted rows, at most one chunk. Returns how many were acknowledged.
///
/// A row that is back is touched past its tombstone instead, so that its document wins over a
/// delete that is on its way. A row whose document is on its way waits for the answer: if the engine were restarted
/// between the two it would have forgotten the version of the delete, and take the document.
///
/// # Errors
///
/// Returns an error if either side fails. A tombstone is forgotten only after the engine has
/// acknowledged it, so the rest is sent again.
pub fn bury(session: &mut Session, kind: Kind) -> Result<usize, Error> {
    let tombstones = load_tombstones(&mut session.conn, kind, CHUNK)?;
    let (back, mut absent): (Vec<&Tombstone>, Vec<&Tombstone>) =
        tombstones.iter().partition(|tombstone| tombstone.is_back);
    if !back.is_empty() {
        revive(&mut session.conn, session.epoch, kind, &back)?;
    }
    let on_their_way: HashSet<Uuid> = session.rows_on_their_way(kind).map(|row| row.id).collect();
    absent.retain(|tombstone| !on_their_way.contains(&tombstone.row_id));
    if absent.is_empty() {
        return Ok(0);
    }
    flush_wal(&mut session.conn)?;
    let mut body = BulkBody::default();
    for tombstone in &absent {
        body.delete(tombstone.row_id, version_of(tombstone.version));
    }
    let outcomes = session.send(kind, body.whole())?;

    let mut acknowledged = Vec::new();
    let mut failure = None;
    for (tombstone, outcome) in absent.iter().zip(outcomes) {
        match outcome {
            Outcome::Acknowledged => acknowledged.push(tombstone.entry_id),
            // Goes again past the engine's version, if the row is still absent then.
            Outcome::Conflict { engine_version } => {
                if let Some(moment) = moment_of(engine_version) {
                    raise_tombstone(&mut session.conn, kind, tombstone.entry_id, moment)?;
                } else {
                    let reason = format!(
                        "there is no higher version than {engine_version}: run `etl init-es`"
                    );
                    failure = Some(undeletable(kind, tombstone.row_id, 409, &reason));
                }
            }
            Outcome::Rejected { error_type, reason } => {
                let reason = format!("{error_type}: {reason}");
                failure = Some(undeletable(kind, tombstone.row_id, 400, &reason));
            }
            other => add_failure(&mut failure, other),
        }
    }
    // Last, for the same reason as a stamp.
    let forgotten = forget(&mut session.conn, session.epoch, "tombstone", kind, &acknowledged)?;
    failure.map_or(Ok(forgotten), Err)
}

/// Names the failure of a document that cannot be deleted; others can.
fn undeletable(kind: Kind, id: Uuid, status: u16, reason: &str) -> Error {
    let reason = format!("the deleted {} {id}: {reason}", kind.table());
    elasticsearch::Error::Item { status, reason }.into()
}

/// Deletes from the index what has no row any more, after the table was truncated. Returns how many times
/// that was asked for.
///
/// # Errors
///
/// Returns an error if either side fails. The entry stays then, and the purge begins anew.
pub fn purge(session: &mut Session, kind: Kind) -> Result<u64, Error> {
    let purges = load_purges(&mut session.conn, kind)?;
    for Purge { entry_id, version } in &purges {
        for index_name in session.index_names(kind) {
            purge_index(session, kind, &index_name, version_of(*version))?;
        }
        forget(&mut session.conn, session.epoch, "purge", kind, &[*entry_id])?;
    }
    Ok(purges.len() as u64)
}

/// Walks through an index in the order of the ids.
fn purge_index(
    session: &mut Session,
    kind: Kind,
    index_name: &str,
    version: i64,
) -> Result<(), Error> {
    // Searches see only what was refreshed.
    session.elasticsearch.refresh(index_name)?;
    let mut after = None;
    let mut deleted = 0;
    loop {
        session.check_leadership()?;
        let page = session.elasticsearch.load_held(index_name, after.as_ref())?;
        let ids: Vec<Uuid> = page.held.iter().map(|held| held.id).collect();
        let absent = find_absent(&mut session.conn, kind, &ids)?;
        deleted += absent.len();
        delete_held(session, kind, &page.held, &absent, version)?;
        after = page.last;
        if after.is_none() {
            break;
        }
    }
    info!("the table {} was truncated: removed {deleted} documents", kind.table());
    Ok(())
}

/// Deletes documents past the version that the engine holds of them, and past that of the truncation.
///
/// If a row of such an id has come back since, with a lower version, its document is refused once
/// and it is touched past this one.
fn delete_held(
    session: &mut Session,
    kind: Kind,
    page: &[Held],
    absent: &[Uuid],
    version: i64,
) -> Result<(), Error> {
    let mut body = BulkBody::default();
    for held in page.iter().filter(|held| absent.contains(&held.id)) {
        // Past it: with the same version the request that wrote it could arrive once more.
        body.delete(held.id, version.max(held.version.saturating_add(1)));
    }
    if body.is_empty() {
        return Ok(());
    }
    flush_wal(&mut session.conn)?;
    let mut failure = None;
    for outcome in session.send(kind, body.whole())? {
        match outcome {
            Outcome::Acknowledged => (),
            // Somebody has written it in between; the purge begins anew and sees the new version.
            Outcome::Conflict { .. } => {
                return Err(Error::Rival(
                    "a document was written by somebody else during a purge".to_owned(),
                ));
            }
            Outcome::Rejected { error_type, reason } => {
                let reason = format!("{error_type}: {reason}");
                return Err(elasticsearch::Error::Item { status: 400, reason }.into());
            }
            other => add_failure(&mut failure, other),
        }
    }
    failure.map_or(Ok(()), Err)
}
