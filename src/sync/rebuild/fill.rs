//! All rows are read and their documents sent to the new index, a page at a time, while the live one is kept in step.

use std::collections::VecDeque;
use std::sync::Arc;

use uuid::Uuid;

use super::comparison::wait_and_finish;
use super::{Progress, give_up};
use crate::elasticsearch::bulk::Outcome;
use crate::error::{Error, chain};
use crate::kind::Kind;
use crate::postgres::pending::Selection;
use crate::postgres::rebuild::{note_trouble, save_filled};
use crate::postgres::stamp::{AsRead, find_unsettled, touch_behind};
use crate::postgres::{Connection, Timestamp, moment_of};
use crate::sync::answers::add_failure;
use crate::sync::batch::Batch;
use crate::sync::limits::Limits;
use crate::sync::page::{Page, load_page};
use crate::sync::sending::{Lane, Sent};
use crate::sync::session::Session;

/// How far a new index is filled.
#[derive(Debug)]
pub(super) struct Fill {
    /// The new index has the documents of all rows up to this one, or newer ones. `None`: it has none yet.
    filled_to: Option<Uuid>,
    /// The pages that were sent since, in the order of their ids.
    open: VecDeque<OpenPage>,
}

/// A page that was sent.
#[derive(Debug)]
struct OpenPage {
    page: Arc<Page>,
    last: Uuid,
    /// How many of its requests were not answered yet.
    requests: usize,
    answers: FillAnswers,
}

impl Fill {
    /// Goes on behind this row.
    pub fn after(filled_to: Option<Uuid>) -> Self {
        Self { filled_to, open: VecDeque::new() }
    }

    fn read_to(&self) -> Option<Uuid> {
        self.open.back().map(|page| page.last).or(self.filled_to)
    }

    /// Returns the page behind those that were noted, once all its requests were answered.
    fn next_answered(&mut self) -> Option<OpenPage> {
        let is_answered = self.open.front().is_some_and(|page| page.requests == 0);
        is_answered.then(|| self.open.pop_front()).flatten()
    }
}

/// Goes on with the new index of a kind: has one page sent to it, or compares it and lets it take the place of
/// the live one. `is_quiet`: nothing else was left to be done.
///
/// # Errors
///
/// Returns an error if either side fails. The next term goes on from what was noted.
pub(in crate::sync) fn advance(
    session: &mut Session,
    kind: Kind,
    is_quiet: bool,
) -> Result<Progress, Error> {
    // A request that takes its time holds up the noting, and not the others, for a while.
    let pages_max = 2 * session.limits.open_requests;
    if !session.has_room(Lane::Fill, session.limits.requests_of_page()) {
        return Ok(Progress::Waiting);
    }
    let Some(filling) = session.filling(kind).as_ref().filter(|f| f.fill.open.len() < pages_max)
    else {
        return Ok(Progress::Waiting);
    };
    let selection = Selection::All(filling.fill.read_to());
    let is_noted = filling.fill.open.is_empty();
    let page = load_page(&mut session.conn, kind, &selection, session.limits.page(), |_| true)?;
    match page.rows.last().map(|row| row.id) {
        Some(last) => send_page(session, kind, page, last),
        None if is_noted => return wait_and_finish(session, kind, is_quiet),
        None => return Ok(Progress::Waiting),
    }
    Ok(Progress::Sent)
}

/// Has a page sent to the new index.
fn send_page(session: &mut Session, kind: Kind, page: Page, last: Uuid) {
    let page = Arc::new(page);
    let Limits { batch_rows, bulk_bytes, .. } = session.limits;
    let (mut first, mut requests) = (0, 0);
    while first < page.rows.len() {
        let end = page.body.end_of_part(first, bulk_bytes).min(first + batch_rows);
        session.hand_out(kind, Lane::Fill, &page, first..end);
        (first, requests) = (end, requests + 1);
    }
    let filling = session.filling(kind).as_mut().expect("only what is filled is sent pages");
    filling.fill.open.push_back(OpenPage { page, last, requests, answers: FillAnswers::default() });
}

/// Takes an answer of the new index, and notes the pages that are complete by it.
///
/// # Errors
///
/// Returns an error if either side has failed. The next term goes on from what was noted.
pub(in crate::sync) fn settle_fill(
    session: &mut Session,
    sent: &Sent,
    outcomes: Result<Vec<Outcome>, Error>,
) -> Result<Batch, Error> {
    let kind = sent.kind;
    let mut batch = Batch::default();
    let Some(filling) = session.filling(kind) else { return Ok(batch) };
    // Not there if a page before it was not taken: then it is sent once more, too.
    if let Some(open) = filling.fill.open.iter_mut().find(|open| sent.is_of(&open.page)) {
        open.requests -= 1;
        open.answers.add(sent.rows(), outcomes);
    }
    // In their order: what is noted says that the documents of all rows up to there have arrived.
    while let Some(filling) = session.filling(kind)
        && let Some(page) = filling.fill.next_answered()
    {
        batch.add(settle_page(session, kind, page)?);
    }
    Ok(batch)
}

/// Acts on what the new index has answered to a page: notes how far it is filled, or has the page, and all behind
/// it, sent once more.
fn settle_page(session: &mut Session, kind: Kind, page: OpenPage) -> Result<Batch, Error> {
    let OpenPage { page, last, answers, .. } = page;
    let Session { conn, epoch, .. } = session;
    let refusal = answers.refusal(conn, kind)?;
    let is_taken = refusal.is_none() && answers.failure.is_none()
        // A writer may hold a row that is to be touched.
        && touch_behind(conn, kind, &answers.conflicts)?
        // Last, for the same reason as a stamp. If the epoch has moved, the next step finds that out.
        && save_filled(conn, kind, *epoch, last, answers.acknowledged)?;
    let filling = session.filling(kind).as_mut().expect("its page was sent");
    if is_taken {
        filling.fill.filled_to = Some(last);
        let (acknowledged, settled) = (answers.acknowledged, page.rows.len());
        return Ok(Batch { acknowledged, settled, ..Batch::default() });
    }
    filling.fill.open.clear();
    let name = filling.index_name.clone();
    let Session { conn, elasticsearch, epoch, .. } = session;
    let refusal = match (refusal, &answers.failure) {
        (None, Some(failure @ Error::Elasticsearch(_))) if note_trouble(conn, kind)? => {
            Some(format!("it has taken nothing for minutes: {}", chain(failure)))
        }
        (refusal, _) => refusal,
    };
    if let Some(refusal) = refusal {
        give_up(conn, elasticsearch, kind, *epoch, &name, &refusal)?;
        return Ok(Batch::default());
    }
    match answers.failure {
        Some(failure) if !failure.concerns_single_documents() => Err(failure),
        failure => Ok(Batch { failure, ..Batch::default() }),
    }
}

/// What the new index has answered.
#[derive(Debug, Default)]
struct FillAnswers {
    acknowledged: usize,
    /// What the new index holds of a higher version: a newer document has been there first, or somebody has
    /// written it by hand.
    conflicts: Vec<(Uuid, Timestamp)>,
    refused: Vec<(AsRead, String)>,
    failure: Option<Error>,
}

impl FillAnswers {
    fn add(&mut self, rows: &[AsRead], outcomes: Result<Vec<Outcome>, Error>) {
        match outcomes {
            Ok(outcomes) => rows.iter().zip(outcomes).for_each(|(row, it)| self.add_one(*row, it)),
            Err(failure) => self.failure = Some(failure),
        }
    }

    fn add_one(&mut self, row: AsRead, outcome: Outcome) {
        match outcome {
            Outcome::Acknowledged => self.acknowledged += 1,
            Outcome::Rejected { error_type, reason } => {
                self.refused.push((row, format!("{error_type}: {reason}")));
            }
            Outcome::Conflict { engine_version } => match moment_of(engine_version) {
                Some(held) => self.conflicts.push((row.id, held)),
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
