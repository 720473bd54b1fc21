//! All rows are read and their documents sent to the new index, a page at a time.

use std::sync::Arc;

use uuid::Uuid;

use super::comparison::wait_and_finish;
use super::{Filling, Progress, give_up};
use crate::elasticsearch::bulk::Outcome;
use crate::error::{Error, chain};
use crate::kind::Kind;
use crate::postgres::pending::Selection;
use crate::postgres::rebuild::{note_trouble, save_filled};
use crate::postgres::stamp::{AsRead, find_unsettled, touch_unchanged};
use crate::postgres::{Connection, Timestamp, moment_of};
use crate::sync::answers::add_failure;
use crate::sync::batch::{Batch, PATIENCE, settle_all};
use crate::sync::limits::Limits;
use crate::sync::page::{Page, load_page};
use crate::sync::session::Session;

/// Goes on with the new index of a kind: sends one page to it, or compares it and lets it take the place of
/// the live one. `is_quiet`: nothing else was left to be done.
///
/// # Errors
///
/// Returns an error if either side fails. The next term goes on from there.
pub(in crate::sync) fn advance(
    session: &mut Session,
    kind: Kind,
    is_quiet: bool,
) -> Result<Progress, Error> {
    let Some(filling) = session.filling(kind).clone() else {
        return Ok(Progress::Filled(Batch::default()));
    };
    let selection = Selection::All(filling.filled_to);
    let page = load_page(&mut session.conn, kind, &selection, session.limits.page(), |_| true)?;
    let Some(last) = page.rows.last().map(|row| row.id) else {
        return wait_and_finish(session, kind, filling, is_quiet);
    };
    // What is on its way to the live index comes first, so that only answers to this page are waited for.
    let before = settle_all(session)?;
    let page = Arc::new(page);
    let answers = send_page(session, kind, &page)?;
    let progress = settle_page(session, kind, filling, &page, last, answers)?;
    Ok(match progress {
        Progress::Filled(mut batch) => {
            batch.add(before);
            Progress::Filled(batch)
        }
        Progress::TermOver => Progress::TermOver,
    })
}

/// Sends a page to the new index, in as many requests at a time as may be open.
///
/// Not one page after the other without waiting: live edits have their turn between two pages.
fn send_page(session: &mut Session, kind: Kind, page: &Arc<Page>) -> Result<Fill, Error> {
    let Limits { open_requests, bulk_bytes, .. } = session.limits;
    let rows_each = page.rows.len().div_ceil(open_requests);
    let mut first = 0;
    while first < page.rows.len() {
        let end = page.body.end_of_part(first, bulk_bytes).min(first + rows_each);
        session.hand_out_fill(kind, page, first..end);
        first = end;
    }
    let mut answers = Fill::default();
    let mut failure = None;
    while !session.open.is_empty() {
        match session.next_answer(PATIENCE)? {
            Some((sent, Ok(outcomes))) => {
                sent.rows()
                    .iter()
                    .zip(outcomes)
                    .for_each(|(row, outcome)| answers.add(*row, outcome));
            }
            Some((_, Err(err))) => failure = failure.or(Some(err)),
            None => (),
        }
    }
    failure.map_or(Ok(answers), Err)
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
