//! All rows are read and their documents sent to the new index, a page at a time, while the live one is kept in step.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::comparison::wait_and_finish;
use super::{Filling, Progress, give_up};
use crate::elasticsearch::bulk::Outcome;
use crate::error::{Error, chain};
use crate::kind::Kind;
use crate::postgres::pending::Selection;
use crate::postgres::rebuild::{note_trouble, save_filled};
use crate::postgres::stamp::{AsRead, find_unsettled, touch_behind};
use crate::postgres::{Connection, Timestamp, moment_of};
use crate::sync::answers::add_failure;
use crate::sync::batch::Batch;
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
    /// There was no row behind the last one. Whatever has come since is pending, and goes to both indices.
    is_at_end: bool,
}

/// A page that was sent.
#[derive(Debug)]
struct OpenPage {
    rows: usize,
    last: Uuid,
    /// The requests that were not answered yet.
    requests: Vec<u64>,
    answers: FillAnswers,
}

impl Fill {
    /// Goes on behind this row.
    pub fn after(filled_to: Option<Uuid>) -> Self {
        Self { filled_to, open: VecDeque::new(), is_at_end: false }
    }

    fn read_to(&self) -> Option<Uuid> {
        self.open.back().map(|page| page.last).or(self.filled_to)
    }

    /// Returns the page behind those that were noted, once all its requests were answered.
    fn next_answered(&mut self) -> Option<OpenPage> {
        let is_answered = self.open.front().is_some_and(|page| page.requests.is_empty());
        is_answered.then(|| self.open.pop_front()).flatten()
    }

    /// Has all that was not noted sent once more.
    fn go_back(&mut self) {
        self.open.clear();
        self.is_at_end = false;
    }
}

/// How long a page is put off that has a row which a writer holds.
const HELD_PAUSE: Duration = Duration::from_secs(1);

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
    let requests = session.room_for_fill();
    let Some(filling) = session.filling(kind) else { return Ok(Progress::Waiting) };
    let Filling { fill, put_off_until, .. } = filling;
    if put_off_until.is_some_and(|until| Instant::now() < until) {
        return Ok(Progress::Waiting);
    }
    if fill.is_at_end && fill.open.is_empty() {
        return wait_and_finish(session, kind, is_quiet);
    }
    if fill.is_at_end || fill.open.len() >= pages_max || requests == 0 {
        return Ok(Progress::Waiting);
    }
    let selection = Selection::All(fill.read_to());
    let limits = session.limits.part_of_page(requests);
    let page = load_page(&mut session.conn, kind, &selection, limits, |_| true)?;
    let open = send_page(session, kind, page, requests);
    let Some(Filling { fill, .. }) = session.filling(kind) else { return Ok(Progress::Waiting) };
    fill.is_at_end = open.is_none();
    fill.open.extend(open);
    Ok(Progress::Sent)
}

/// Has as much of a page sent to the new index as so many requests hold. Returns nothing if there are no rows.
fn send_page(
    session: &mut Session,
    kind: Kind,
    page: Page,
    requests_max: usize,
) -> Option<OpenPage> {
    let page = Arc::new(page);
    let (mut rows, mut requests) = (0, Vec::new());
    while rows < page.rows.len() && requests.len() < requests_max {
        let (number, end) = session.hand_out(kind, Lane::Fill, &page, rows);
        requests.push(number);
        rows = end;
    }
    let last = page.rows[..rows].last()?.id;
    Some(OpenPage { rows, last, requests, answers: FillAnswers::default() })
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
    let is_of = |page: &&mut OpenPage| page.requests.contains(&sent.number);
    if let Some(page) = filling.fill.open.iter_mut().find(is_of) {
        page.requests.retain(|number| *number != sent.number);
        page.answers.add(sent.rows(), outcomes);
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
    let OpenPage { rows, last, answers, .. } = page;
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
        return Ok(Batch { acknowledged: answers.acknowledged, settled: rows, ..Batch::default() });
    }
    filling.fill.go_back();
    if answers.failure.is_none() {
        filling.put_off_until = Some(Instant::now() + HELD_PAUSE);
    }
    let name = filling.index_name.clone();
    let Session { conn, elasticsearch, epoch, .. } = session;
    let refusal = match (refusal, &answers.failure) {
        (None, Some(failure))
            if failure.concerns_single_documents() && note_trouble(conn, kind)? =>
        {
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
