//! A batch of films: from reading to stamp.
//!
//! The order is what makes it safe. The row of a film is read first and its links and people after
//! it, without locks: whatever changes in between touches the film after it can be seen, so the
//! version that was read is never too high for the relations that were. The document goes out with
//! that version. The stamp is last, and only on what is still as it was read.

use std::collections::{HashMap, HashSet};

use log::{error, warn};
use uuid::Uuid;

use crate::documents::film::{FilmDocument, group_relations};
use crate::elasticsearch;
use crate::elasticsearch::bulk::{BulkBody, Outcome};
use crate::error::Error;
use crate::postgres::film_work::{
    FilmWork, Position, find_last_pending, load_credits, load_genres, load_pending, load_sample,
};
use crate::postgres::flush_wal;
use crate::postgres::rejected::{Rejection, reject};
use crate::postgres::stamp::{AsRead, stamp, touch};
use crate::sync::answers::{Answered, Answers};
use crate::sync::session::Session;

/// Where the reading of pending films has come to.
#[derive(Debug, Default)]
pub struct FilmQueue {
    /// The pass through a backlog, if there is one.
    pass: Option<Pass>,
    /// What the engine has answered for films that a writer held when it was to be written down. Only
    /// that is tried again, for as long as the row is the same.
    answered: HashMap<Uuid, Answered>,
    /// The engine has acknowledged a document.
    mapping_fits: bool,
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
    /// Nothing is pending, so nothing is left to be written down, either.
    pub(super) fn end_of_queue(&mut self) {
        *self = Self::default();
    }
}

/// How many documents say whether the mapping fits.
const SAMPLE: i64 = 100;

/// What became of a batch.
#[derive(Debug, Default)]
pub struct Batch {
    /// The page had no room for more films.
    pub is_full: bool,
    /// Documents that the engine acknowledged.
    pub acknowledged: usize,
    /// Films that were stamped, recorded as rejected, or touched past a conflict.
    pub settled: usize,
    /// Why some documents alone were neither.
    pub failure: Option<Error>,
}

impl Batch {
    /// Adds what became of a request.
    fn add(&mut self, request: Self) {
        self.acknowledged += request.acknowledged;
        self.settled += request.settled;
        self.failure = self.failure.take().or(request.failure);
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
    let mut batch = Batch { is_full: films.len() >= session.limits.batch_rows, ..Batch::default() };
    let mut answers = Answers::default();
    let mut unsent = Vec::with_capacity(films.len());
    for film in films {
        match session.films.answered.get(&film.id) {
            Some(answered) if answered.film() == film.as_read() => answers.push(answered.clone()),
            _ => unsent.push(film),
        }
    }
    batch.settled += settle(session, &answers)?;

    let documents = build_documents(session, unsent)?;
    let mut unsent = documents.as_slice();
    while !unsent.is_empty() {
        let body = build_body(unsent, session.limits.bulk_bytes);
        let (sent, rest) = unsent.split_at(body.operations());
        batch.add(send_and_settle(session, sent, &body)?);
        unsent = rest;
    }
    Ok(batch)
}

/// Loads the next page. In a backlog half of it is kept for what was touched since the pass began, so
/// that neither an edit waits behind a whole load, nor a load behind a steady trickle of edits.
fn load_page(session: &mut Session) -> Result<Vec<FilmWork>, Error> {
    let (rows, bytes) = (session.limits.batch_rows, session.limits.bulk_bytes);
    let conn = &mut session.conn;
    if let Some(pass) = session.films.pass {
        let mut page = load_pending(conn, pass.horizon, rows.div_ceil(2), bytes)?;
        let backlog = load_pending(conn, pass.position, (rows - page.len()).max(1), bytes)?;
        if let Some(last) = backlog.last() {
            session.films.pass = Some(Pass { position: last.position(), ..pass });
            // Near its end the backlog comes to the same films.
            let fresh: HashSet<Uuid> = page.iter().map(|film| film.id).collect();
            page.extend(backlog.into_iter().filter(|film| !fresh.contains(&film.id)));
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
    let mut answers = Answers::sort(films.zip(outcomes));
    session.films.mapping_fits |= !answers.acknowledged.is_empty();
    let mut failure = answers.failure.take();
    if answers.are_all_rejected() && !session.films.mapping_fits {
        failure = check_mapping(session, &answers.rejections)?;
        if failure.is_some() {
            return Ok(Batch { failure, ..Batch::default() });
        }
    }
    let settled = settle(session, &answers)?;
    match failure {
        Some(failure) if !failure.concerns_single_documents() => Err(failure),
        failure => Ok(Batch {
            acknowledged: answers.acknowledged.len(),
            settled,
            failure,
            ..Batch::default()
        }),
    }
}

fn send_halves(
    session: &mut Session,
    documents: &[(AsRead, FilmDocument)],
) -> Result<Batch, Error> {
    let (first, second) = documents.split_at(documents.len() / 2);
    let mut batch = Batch::default();
    for half in [first, second] {
        batch.add(send_and_settle(session, half, &build_body(half, usize::MAX))?);
    }
    Ok(batch)
}

/// Looks whether the mapping fits at all, when the engine refuses every document of a batch: tries some of
/// the others, from elsewhere. If these are refused, too, the answer is what to say about it, and nothing is
/// to be recorded, lest there be a line for every film.
fn check_mapping(session: &mut Session, rejections: &[Rejection]) -> Result<Option<Error>, Error> {
    let refused: HashSet<Uuid> = rejections.iter().map(|rejection| rejection.film.id).collect();
    let mut sample = load_sample(&mut session.conn, SAMPLE)?;
    sample.retain(|film| !refused.contains(&film.id));
    let tried = sample.len();
    let fits = if tried == 0 {
        !session.elasticsearch.is_empty(session.index_name())?
    } else {
        let documents = build_documents(session, sample)?;
        let outcomes = session.send(&build_body(&documents, usize::MAX))?;
        !outcomes.iter().all(|outcome| matches!(outcome, Outcome::Rejected { .. }))
    };
    if fits {
        // Those of the sample are sent once more when it is their turn.
        session.films.mapping_fits = true;
        return Ok(None);
    }
    let Rejection { film, error_type, reason } = &rejections[0];
    let misfit = elasticsearch::Error::Misfit {
        documents: rejections.len() + tried,
        example: format!("film {}: {error_type}: {reason}", film.id),
    };
    Ok(Some(misfit.into()))
}

/// Writes down what the engine has answered: stamps what was acknowledged, records what was rejected,
/// touches what was in conflict. Returns how many that were; the others are remembered.
fn settle(session: &mut Session, answers: &Answers) -> Result<usize, Error> {
    let Session { conn, epoch, films, .. } = session;
    let mut done = Vec::new();
    // Last of all that is done with an acknowledged document, on purpose. A crash before this line
    // sends it again, which does no harm; a stamp that comes any earlier could lose it.
    if !answers.acknowledged.is_empty() {
        done.extend(stamp(conn, *epoch, &answers.acknowledged)?);
    }
    if !answers.rejections.is_empty() {
        let recorded = reject(conn, *epoch, &answers.rejections)?;
        report(&answers.rejections, &recorded);
        done.extend(recorded);
    }
    if !answers.conflicts.is_empty() {
        let past = answers.conflicts.iter().map(|(film, past)| (film.id, *past));
        done.extend(touch(conn, &past.collect::<Vec<_>>())?);
    }
    let done: HashSet<Uuid> = done.into_iter().collect();
    films.answered.retain(|id, _| !done.contains(id));
    let held = answers.each().filter(|answered| !done.contains(&answered.film().id));
    films.answered.extend(held.map(|answered| (answered.film().id, answered)));
    Ok(done.len())
}

fn report(rejections: &[Rejection], recorded: &[Uuid]) {
    if let Some(Rejection { film, error_type, reason }) =
        rejections.iter().find(|rejection| recorded.contains(&rejection.film.id))
    {
        let (count, id) = (recorded.len(), film.id);
        error!(
            "the engine rejects {count} documents, listed in etl.rejected; film {id}: {error_type}: {reason}"
        );
    }
}
