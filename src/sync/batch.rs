//! A batch of pending rows: from reading to stamp.
//!
//! The documents go out with the versions that were read ([`super::page`]). The stamp is last, and only on
//! what is still as it was read.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use log::error;
use uuid::Uuid;

use crate::elasticsearch;
use crate::elasticsearch::bulk::Outcome;
use crate::error::Error;
use crate::kind::Kind;
use crate::postgres::pending::{PageLimits, Position, Selection, find_last_pending, load_sample};
use crate::postgres::rejected::{Rejection, reject};
use crate::postgres::stamp::{AsRead, stamp, touch};
use crate::sync::answers::{Answered, Answers};
use crate::sync::limits::Limits;
use crate::sync::page::{Page, load_page};
use crate::sync::rebuild::settle_fill;
use crate::sync::sending::{Lane, Sent};
use crate::sync::session::Session;

/// Where the reading of pending rows of a kind has come to.
#[derive(Debug, Default)]
pub struct Reading {
    /// The pass through a backlog, if there is one.
    pass: Option<Pass>,
    /// What the engine has answered for rows that a writer held when it was to be written down. Only
    /// that is tried again, for as long as the row is the same.
    answered: HashMap<Uuid, Answered>,
    /// The engine has acknowledged a document.
    mapping_fits: bool,
}

/// A pass through more pending rows than one page holds.
#[derive(Debug, Clone, Copy)]
struct Pass {
    /// The end of the last page.
    position: Position,
    /// What was the last place when the pass began. An edit made since lies behind it.
    horizon: Position,
}

impl Reading {
    /// Returns true in the midst of more pending rows than one page holds.
    pub(super) fn is_in_backlog(&self) -> bool {
        self.pass.is_some()
    }

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
    /// There may be more rows than were handed out.
    pub is_full: bool,
    /// Documents were handed out.
    pub has_sent: bool,
    /// Documents that the engine acknowledged.
    pub acknowledged: usize,
    /// Rows that were stamped, recorded as rejected, or touched past a conflict.
    pub settled: usize,
    /// Why some documents alone were neither.
    pub failure: Option<Error>,
}

impl Batch {
    /// Adds what became of a request.
    pub(super) fn add(&mut self, request: Self) {
        self.is_full |= request.is_full;
        self.has_sent |= request.has_sent;
        self.acknowledged += request.acknowledged;
        self.settled += request.settled;
        self.failure = self.failure.take().or(request.failure);
    }
}

/// Reads at most one page of pending rows of a kind, if there is room for its requests, and has it sent.
///
/// In a backlog, what was touched since the pass began has a request of its own, so that neither an edit waits
/// behind a whole load, nor a load behind a steady trickle of edits.
///
/// # Errors
///
/// Returns an error if either side fails. What was acknowledged until then is stamped, or is sent
/// again, which does no harm.
pub fn index_batch(session: &mut Session, kind: Kind) -> Result<Batch, Error> {
    let Limits { batch_rows, bulk_bytes, .. } = session.limits;
    let limits = session.limits.page();
    let mut batch = Batch::default();
    let pass = session.reading(kind).pass;
    if let Some(pass) = pass.filter(|_| session.room(Lane::Fresh) > 0) {
        let limits = PageLimits { rows: batch_rows, bytes: bulk_bytes };
        let fresh = read(session, kind, pass.horizon, limits)?;
        batch.add(index_page(session, kind, Lane::Fresh, fresh)?);
    }
    if session.room(Lane::Backlog) < session.limits.requests_of_page() {
        return Ok(Batch { is_full: true, ..batch });
    }
    if let Some(pass) = pass {
        let backlog = read(session, kind, pass.position, limits)?;
        let last = backlog.rows.last().map(position_of);
        session.reading(kind).pass = last.map(|position| Pass { position, ..pass });
        if last.is_some() {
            batch.add(index_page(session, kind, Lane::Backlog, backlog)?);
            return Ok(Batch { is_full: true, ..batch });
        }
    }
    // At the end of a pass the next look is from the start again: a row that was committed late may
    // lie before the place that we had come to.
    let page = read(session, kind, Position::START, limits)?;
    session.reading(kind).pass = match page.rows.last().map(position_of) {
        Some(position) => find_last_pending(&mut session.conn, kind)?
            .filter(|horizon| *horizon > position)
            .map(|horizon| Pass { position, horizon }),
        None => None,
    };
    let is_full = page.rows.len() >= limits.rows;
    batch.add(index_page(session, kind, Lane::Backlog, page)?);
    Ok(Batch { is_full, ..batch })
}

fn position_of(row: &AsRead) -> Position {
    Position { touched_at: row.touched_at, id: row.id }
}

/// Reads a page of pending rows after a place. Those that are on their way are left out, and those that were
/// answered as they are need no document.
fn read(
    session: &mut Session,
    kind: Kind,
    after: Position,
    limits: PageLimits,
) -> Result<Page, Error> {
    // In a backlog they are before the place, all but a few.
    let is_after = |row: &&AsRead| position_of(row) > after;
    let except: Vec<AsRead> = session.rows_to_be_stamped(kind).filter(is_after).copied().collect();
    let (conn, reading) = session.conn_and_reading(kind);
    let is_unanswered =
        |row: &AsRead| reading.answered.get(&row.id).is_none_or(|answered| answered.row() != *row);
    load_page(conn, kind, &Selection::Pending { after, except }, limits, is_unanswered)
}

/// Writes down once more what was answered before, and has the others sent. Waits only where their documents are too
/// long for the requests that there is room for.
fn index_page(session: &mut Session, kind: Kind, lane: Lane, page: Page) -> Result<Batch, Error> {
    let mut known = Answers::default();
    if page.to_send.len() < page.rows.len() {
        let reading = session.reading(kind);
        for row in &page.rows {
            if let Some(answered) = reading.answered.get(&row.id).filter(|a| a.row() == *row) {
                known.push(answered.clone());
            }
        }
    }
    let mut batch = Batch { settled: settle(session, kind, &known)?, ..Batch::default() };
    let page = Arc::new(page);
    let mut first = 0;
    while first < page.to_send.len() {
        batch.add(settle_while(session, |session| session.room(lane) == 0)?);
        (_, first) = session.hand_out(kind, lane, &page, first);
        batch.has_sent = true;
    }
    Ok(batch)
}

/// How long an answer is waited for at a time. In between the lead may be lost, and there may be an edit.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);

/// Waits until no request is open, and acts on the answers.
///
/// # Errors
///
/// Returns an error if a request failed as a whole, or if a statement did. The engine's answers to the others have
/// been waited for, and what it acknowledged in them is stamped.
pub(super) fn settle_all(session: &mut Session) -> Result<Batch, Error> {
    settle_while(session, |session| !session.open.is_empty())
}

/// Acts on answers as long as something is so that an answer will end.
fn settle_while(session: &mut Session, is_so: impl Fn(&Session) -> bool) -> Result<Batch, Error> {
    let mut batch = Batch::default();
    while is_so(session) {
        batch.add(settle_next(session, PATIENCE)?.unwrap_or_default());
    }
    Ok(batch)
}

/// Acts on the answers that have come. If there is none, waits so long for one.
///
/// # Errors
///
/// As [`settle_all`].
pub(super) fn settle_answered(
    session: &mut Session,
    mut patience: Duration,
) -> Result<Batch, Error> {
    let mut batch = Batch::default();
    while !session.open.is_empty() {
        let Some(answered) = settle_next(session, patience)? else { break };
        batch.add(answered);
        patience = Duration::ZERO;
    }
    Ok(batch)
}

/// Waits so long for an answer, and acts on it.
fn settle_next(session: &mut Session, patience: Duration) -> Result<Option<Batch>, Error> {
    let Some((sent, outcomes)) = session.next_answer(patience)? else { return Ok(None) };
    let settled = match sent.lane {
        Lane::Backlog | Lane::Fresh => {
            outcomes.and_then(|outcomes| settle_answer(session, &sent, outcomes))
        }
        Lane::Fill => settle_fill(session, &sent, outcomes),
    };
    match settled {
        Err(failure @ Error::Elasticsearch(_)) => {
            // The answers to these are worth a stamp each, and those of a fill are not.
            let is_of_rows = |sent: &Sent| sent.lane != Lane::Fill;
            match settle_while(session, |session| session.open.iter().any(is_of_rows)) {
                Ok(_) | Err(Error::Elasticsearch(_)) => Err(failure),
                Err(err) => Err(err),
            }
        }
        settled => settled.map(Some),
    }
}

/// Acts on the answer to a request.
fn settle_answer(
    session: &mut Session,
    sent: &Sent,
    outcomes: Vec<Outcome>,
) -> Result<Batch, Error> {
    let kind = sent.kind;
    let mut answers = Answers::sort(sent.rows().iter().copied().zip(outcomes));
    session.reading(kind).mapping_fits |= !answers.acknowledged.is_empty();
    let mut failure = answers.failure.take();
    if answers.are_all_rejected() && !session.reading(kind).mapping_fits {
        failure = check_mapping(session, kind, &answers.rejections)?;
        if failure.is_some() {
            return Ok(Batch { failure, ..Batch::default() });
        }
    }
    let settled = settle(session, kind, &answers)?;
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

/// Looks whether the mapping fits at all, when the engine refuses every document of a batch: tries some of
/// the others, from elsewhere. If these are refused, too, the answer is what to say about it, and nothing is
/// to be recorded, lest there be a line for every row.
fn check_mapping(
    session: &mut Session,
    kind: Kind,
    rejections: &[Rejection],
) -> Result<Option<Error>, Error> {
    let refused: HashSet<Uuid> = rejections.iter().map(|rejection| rejection.row.id).collect();
    let mut ids = load_sample(&mut session.conn, kind, SAMPLE)?;
    ids.retain(|id| !refused.contains(id));
    let limits = PageLimits { rows: ids.len(), bytes: session.limits.bulk_bytes };
    let sample = load_page(&mut session.conn, kind, &Selection::Ids(ids), limits, |_| true)?;
    let fits = if sample.body.is_empty() {
        session.elasticsearch.count(session.index_name(kind))? > 0
    } else {
        let outcomes = session.send(kind, sample.body.whole())?;
        !outcomes.iter().all(|outcome| matches!(outcome, Outcome::Rejected { .. }))
    };
    if fits {
        // Those of the sample are sent once more when it is their turn.
        session.reading(kind).mapping_fits = true;
        return Ok(None);
    }
    let Rejection { row, error_type, reason } = &rejections[0];
    let misfit = elasticsearch::Error::Misfit {
        documents: rejections.len() + sample.rows.len(),
        example: format!("{} {}: {error_type}: {reason}", kind.table(), row.id),
    };
    Ok(Some(misfit.into()))
}

/// Writes down what the engine has answered: stamps what was acknowledged, records what was rejected,
/// touches what was in conflict. Returns how many that were; the others are remembered.
fn settle(session: &mut Session, kind: Kind, answers: &Answers) -> Result<usize, Error> {
    let epoch = session.epoch;
    let conn = &mut session.conn;
    let mut done = Vec::new();
    // Last of all that is done with an acknowledged document, on purpose. A crash before this line
    // sends it again, which does no harm; a stamp that comes any earlier could lose it.
    if !answers.acknowledged.is_empty() {
        done.extend(stamp(conn, kind, epoch, &answers.acknowledged)?);
    }
    if !answers.rejections.is_empty() {
        let recorded = reject(conn, kind, epoch, &answers.rejections)?;
        report(kind, &answers.rejections, &recorded);
        done.extend(recorded);
    }
    if !answers.conflicts.is_empty() {
        let past = answers.conflicts.iter().map(|(row, past)| (row.id, *past));
        done.extend(touch(conn, kind, &past.collect::<Vec<_>>())?);
    }
    let done: HashSet<Uuid> = done.into_iter().collect();
    let reading = session.reading(kind);
    reading.answered.retain(|id, _| !done.contains(id));
    let held = answers.each().filter(|answered| !done.contains(&answered.row().id));
    reading.answered.extend(held.map(|answered| (answered.row().id, answered)));
    Ok(done.len())
}

fn report(kind: Kind, rejections: &[Rejection], recorded: &[Uuid]) {
    if let Some(Rejection { row, error_type, reason }) =
        rejections.iter().find(|rejection| recorded.contains(&rejection.row.id))
    {
        let (count, table, id) = (recorded.len(), kind.table(), row.id);
        error!(
            "the engine rejects {count} documents, listed in etl.rejected; {table} {id}: {error_type}: {reason}"
        );
    }
}
