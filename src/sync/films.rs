//! A batch of films: from reading to stamp.
//!
//! The order is what makes it safe. The row of a film is read first and its links and people after
//! it, without locks: whatever changes in between touches the film after it can be seen, so the
//! version that was read is never too high for the relations that were. The document goes out with
//! that version. The stamp is last, and only on what is still as it was read.

use std::collections::HashMap;

use log::{error, warn};
use uuid::Uuid;

use crate::documents::film::{FilmDocument, group_relations};
use crate::elasticsearch::bulk::{BulkBody, Outcome};
use crate::error::Error;
use crate::postgres::film_work::{
    FilmWork, Position, find_last_pending, load_credits, load_genres, load_pending,
};
use crate::postgres::flush_wal;
use crate::postgres::stamp::{self, AsRead, Rejection};
use crate::sync::answers::Answers;
use crate::sync::session::Session;

/// Where the reading of pending films has come to.
#[derive(Debug, Default)]
pub struct FilmQueue {
    /// The pass through a backlog, if there is one.
    pass: Option<Pass>,
    /// Acknowledged, but a writer held the row when it was to be stamped. Only the stamp is tried
    /// again, for as long as the row is the same.
    acknowledged: HashMap<Uuid, AsRead>,
}

/// A pass through more pending films than one page holds.
#[derive(Debug, Clone, Copy)]
struct Pass {
    /// The end of the last page.
    position: Position,
    /// What was the last place when the pass began. An edit made since lies behind it.
    horizon: Position,
}

impl FilmQueue {
    /// Nothing is pending, so nothing acknowledged is left to be stamped, either.
    pub(super) fn end_of_queue(&mut self) {
        *self = Self::default();
    }
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Batch {
    /// Documents that the engine acknowledged.
    pub acknowledged: usize,
    /// Films that were stamped, or recorded as rejected.
    pub stamped: usize,
}

impl Batch {
    /// Returns true if there was nothing to do, or nothing that could be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Indexes at most one page of pending films.
///
/// # Errors
///
/// Returns an error if either side fails. What was acknowledged until then is stamped, or is sent
/// again, which does no harm.
pub fn index_batch(session: &mut Session) -> Result<Batch, Error> {
    let films = load_page(session)?;
    let mut batch = Batch::default();
    let (settled, unsent): (Vec<_>, Vec<_>) = films
        .into_iter()
        .partition(|film| session.films.acknowledged.get(&film.id) == Some(&film.as_read()));
    let settled: Vec<AsRead> = settled.iter().map(FilmWork::as_read).collect();
    batch.stamped += stamp(session, &settled)?;

    let documents = build_documents(session, unsent)?;
    let mut unsent = documents.as_slice();
    while !unsent.is_empty() {
        let body = build_body(unsent, session.limits.bulk_bytes);
        let (sent, rest) = unsent.split_at(body.operations());
        let request = send_and_settle(session, sent, &body)?;
        batch.acknowledged += request.acknowledged;
        batch.stamped += request.stamped;
        unsent = rest;
    }
    Ok(batch)
}

/// Loads the next page. In a backlog what was touched since the pass began goes first, so that an
/// edit does not wait behind a whole load.
fn load_page(session: &mut Session) -> Result<Vec<FilmWork>, Error> {
    let (rows, bytes) = (session.limits.batch_rows, session.limits.bulk_bytes);
    let conn = &mut session.conn;
    if let Some(pass) = session.films.pass {
        let fresh = load_pending(conn, pass.horizon, rows, bytes)?;
        if fresh.iter().any(|film| !session.films.acknowledged.contains_key(&film.id)) {
            return Ok(fresh);
        }
        let page = load_pending(conn, pass.position, rows, bytes)?;
        if let Some(last) = page.last() {
            session.films.pass = Some(Pass { position: last.position(), ..pass });
            return Ok(page);
        }
    }
    // At the end of a pass the next look is from the start again: a row that was committed late may
    // lie before the place that we had come to.
    let page = load_pending(conn, Position::START, rows, bytes)?;
    session.films.pass = match page.last() {
        Some(last) => find_last_pending(conn)?
            .filter(|horizon| *horizon > last.position())
            .map(|horizon| Pass { position: last.position(), horizon }),
        None => None,
    };
    Ok(page)
}

/// Reads what belongs to the films, after the films, and builds their documents.
///
/// Two statements, and a third that makes sure that what was read survives a crash of PostgreSQL.
fn build_documents(
    session: &mut Session,
    films: Vec<FilmWork>,
) -> Result<Vec<(AsRead, FilmDocument)>, Error> {
    if films.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = films.iter().map(|film| film.id).collect();
    let credits = load_credits(&mut session.conn, &ids)?;
    let genres = load_genres(&mut session.conn, &ids)?;
    flush_wal(&mut session.conn)?;
    let mut relations = group_relations(credits, genres);
    let build = |film: FilmWork| {
        let related = relations.remove(&film.id).unwrap_or_default();
        (film.as_read(), FilmDocument::new(film, related))
    };
    Ok(films.into_iter().map(build).collect())
}

/// Puts documents into one body until it is full; one at least.
fn build_body(documents: &[(AsRead, FilmDocument)], bulk_bytes: usize) -> BulkBody {
    let mut body = BulkBody::default();
    for (film, document) in documents {
        if body.len() >= bulk_bytes {
            break;
        }
        body.index(film.id, film.version(), document);
    }
    body
}

/// Sends documents, in halves if they are too many for the engine, and acts on the answers.
fn send_and_settle(
    session: &mut Session,
    documents: &[(AsRead, FilmDocument)],
    body: &BulkBody,
) -> Result<Batch, Error> {
    let outcomes = match session.send(body) {
        Ok(outcomes) => outcomes,
        Err(Error::Elasticsearch(err)) if err.is_too_large() => {
            let [(film, _)] = documents else {
                return send_halves(session, documents);
            };
            warn!("the document of film {} is larger than the engine takes", film.id);
            vec![Outcome::Rejected {
                error_type: "content_too_long".to_owned(),
                reason: format!(
                    "the document of {} bytes is larger than the engine takes",
                    body.len()
                ),
            }]
        }
        Err(err) => return Err(err),
    };
    let films = documents.iter().map(|(film, _)| *film);
    settle(session, Answers::sort(films.zip(outcomes)))
}

fn send_halves(
    session: &mut Session,
    documents: &[(AsRead, FilmDocument)],
) -> Result<Batch, Error> {
    let (first, second) = documents.split_at(documents.len() / 2);
    let mut batch = Batch::default();
    for half in [first, second] {
        let part = send_and_settle(session, half, &build_body(half, usize::MAX))?;
        batch.acknowledged += part.acknowledged;
        batch.stamped += part.stamped;
    }
    Ok(batch)
}

/// Acts on the answers: stamps what was acknowledged, records what was rejected, touches what was in
/// conflict, and only then speaks of what failed.
fn settle(session: &mut Session, answers: Answers) -> Result<Batch, Error> {
    let mut batch = Batch { acknowledged: answers.acknowledged.len(), ..Batch::default() };
    // Last of all that is done with an acknowledged document, on purpose. A crash before this line
    // sends it again, which does no harm; a stamp that comes any earlier could lose it.
    batch.stamped += stamp(session, &answers.acknowledged)?;
    if !answers.rejections.is_empty() {
        stamp::reject(&mut session.conn, session.epoch, &answers.rejections)?;
        batch.stamped += answers.rejections.len();
        report(&answers.rejections);
    }
    if !answers.conflicts.is_empty() {
        batch.stamped += stamp::touch(&mut session.conn, &answers.conflicts)?.len();
    }
    match answers.failure {
        Some(failure) => Err(failure),
        None => Ok(batch),
    }
}

/// Stamps films, and remembers those that could not be. Returns how many it stamped.
fn stamp(session: &mut Session, films: &[AsRead]) -> Result<usize, Error> {
    if films.is_empty() {
        return Ok(0);
    }
    let stamped = stamp::stamp(&mut session.conn, session.epoch, films)?;
    let acknowledged = &mut session.films.acknowledged;
    acknowledged.extend(films.iter().map(|film| (film.id, *film)));
    for id in &stamped {
        acknowledged.remove(id);
    }
    Ok(stamped.len())
}

fn report(rejections: &[Rejection]) {
    if let [Rejection { film, error_type, reason }, others @ ..] = rejections {
        let count = others.len() + 1;
        error!(
            "the engine rejects {count} documents, listed in etl.rejected; film {}: {error_type}: {reason}",
            film.id
        );
    }
}
