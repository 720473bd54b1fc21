//! Deletions: what the outbox asks to be removed from the index.

use log::info;
use uuid::Uuid;

use crate::elasticsearch;
use crate::elasticsearch::bulk::{BulkBody, Outcome};
use crate::elasticsearch::search::Held;
use crate::error::Error;
use crate::postgres::outbox::{
    Sweep, Tombstone, expand_sweep, find_absent, forget, load_sweeps, load_tombstones,
    raise_tombstone, revive,
};
use crate::postgres::{flush_wal, moment_of, version_of};
use crate::sync::CHUNK;
use crate::sync::answers::add_failure;
use crate::sync::session::Session;

/// Deletes the documents of deleted films, at most one chunk. Returns how many were acknowledged.
///
/// A film that is back is touched past its tombstone instead, so that its document wins over a
/// delete that is on its way.
///
/// # Errors
///
/// Returns an error if either side fails. A tombstone is forgotten only after the engine has
/// acknowledged it, so the rest is sent again.
pub fn bury(session: &mut Session) -> Result<usize, Error> {
    let tombstones = load_tombstones(&mut session.conn, CHUNK)?;
    let (back, absent): (Vec<&Tombstone>, Vec<&Tombstone>) =
        tombstones.iter().partition(|tombstone| tombstone.is_back);
    if !back.is_empty() {
        revive(&mut session.conn, session.epoch, &back)?;
    }
    if absent.is_empty() {
        return Ok(0);
    }
    flush_wal(&mut session.conn)?;
    let mut body = BulkBody::default();
    for tombstone in &absent {
        body.delete(tombstone.film_work_id, version_of(tombstone.version));
    }
    let outcomes = session.send(&body)?;

    let mut acknowledged = Vec::new();
    let mut failure = None;
    for (tombstone, outcome) in absent.iter().zip(outcomes) {
        match outcome {
            Outcome::Acknowledged => acknowledged.push(tombstone.entry_id),
            // Goes again past the engine's version, if the film is still absent then.
            Outcome::Conflict { engine_version } => {
                if let Some(moment) = moment_of(engine_version) {
                    raise_tombstone(&mut session.conn, tombstone.entry_id, moment)?;
                } else {
                    let reason = format!(
                        "there is no higher version than {engine_version}: run `etl init-es`"
                    );
                    failure = Some(undeletable(tombstone.film_work_id, 409, &reason));
                }
            }
            Outcome::Rejected { error_type, reason } => {
                let reason = format!("{error_type}: {reason}");
                failure = Some(undeletable(tombstone.film_work_id, 400, &reason));
            }
            other => add_failure(&mut failure, other),
        }
    }
    // Last, for the same reason as a stamp.
    let forgotten = forget(&mut session.conn, session.epoch, "tombstone", &acknowledged)?;
    failure.map_or(Ok(forgotten), Err)
}

/// Names the failure of a document that cannot be deleted; others can.
fn undeletable(id: Uuid, status: u16, reason: &str) -> Error {
    let reason = format!("the deleted film {id}: {reason}");
    elasticsearch::Error::Item { status, reason }.into()
}

/// Carries out the sweep markers that truncated tables have left. Returns how many.
///
/// # Errors
///
/// Returns an error if either side fails. The marker stays then, and the sweep begins anew.
pub fn sweep(session: &mut Session) -> Result<u64, Error> {
    let sweeps = load_sweeps(&mut session.conn)?;
    for sweep in &sweeps {
        if sweep.kind == "film_work" {
            sweep_films(session, sweep)?;
            forget(&mut session.conn, session.epoch, "sweep", &[sweep.entry_id])?;
        } else {
            expand_sweep(&mut session.conn, session.epoch, sweep)?;
        }
    }
    Ok(sweeps.len() as u64)
}

/// Deletes from the index what has no row in PostgreSQL, in the order of the ids.
fn sweep_films(session: &mut Session, sweep: &Sweep) -> Result<(), Error> {
    let index_name = session.index_name().to_owned();
    // Searches see only what was refreshed.
    session.elasticsearch.refresh(&index_name)?;
    let mut after = None;
    let mut deleted = 0;
    loop {
        session.check_leadership()?;
        let page = session.elasticsearch.load_held(&index_name, after.as_ref())?;
        let ids: Vec<Uuid> = page.held.iter().map(|held| held.id).collect();
        let absent = find_absent(&mut session.conn, &ids)?;
        deleted += absent.len();
        delete_held(session, &page.held, &absent, version_of(sweep.version))?;
        after = page.last;
        if after.is_none() {
            break;
        }
    }
    info!("the table film_work was truncated: removed {deleted} documents");
    Ok(())
}

/// Deletes documents past the version that the engine holds of them, and past the marker.
///
/// If a film of such an id has come back since, with a lower version, its document is refused once
/// and it is touched past this one.
fn delete_held(
    session: &mut Session,
    page: &[Held],
    absent: &[Uuid],
    marker: i64,
) -> Result<(), Error> {
    let mut body = BulkBody::default();
    for held in page.iter().filter(|held| absent.contains(&held.id)) {
        // Past it: with the same version the request that wrote it could arrive once more.
        body.delete(held.id, marker.max(held.version.saturating_add(1)));
    }
    if body.is_empty() {
        return Ok(());
    }
    flush_wal(&mut session.conn)?;
    let mut failure = None;
    for outcome in session.send(&body)? {
        match outcome {
            Outcome::Acknowledged => (),
            // Somebody has written it in between; the sweep begins anew and sees the new version.
            Outcome::Conflict { .. } => {
                return Err(Error::Rival(
                    "a document was written by somebody else during a sweep".to_owned(),
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
