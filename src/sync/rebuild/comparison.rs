//! The new index is compared with the rows before it takes the place of the live one.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use log::{info, warn};
use uuid::Uuid;

use super::counting::{Count, Counting};
use super::switch::finish;
use super::{Filling, Progress, give_up};
use crate::error::{Error, chain};
use crate::kind::Kind;
use crate::postgres::Timestamp;
use crate::postgres::pending::{PageLimits, Selection, load_random};
use crate::postgres::stamp::{AsRead, find_unsettled, touch};
use crate::sync::page::load_page;
use crate::sync::session::Session;

/// How many documents are compared before the switch.
const SAMPLE: usize = 1_000;

/// How often in a row something has to be wrong.
const STRIKES_MAX: u32 = 5;

/// Ends the rebuild when there is nothing else to be done, or after a while all the same.
///
/// Links and renamed genres that nobody has looked at yet make documents differ; so does what is written while
/// they are compared. Only a difference that is found again and again is one.
pub(super) fn wait_and_finish(
    session: &mut Session,
    kind: Kind,
    is_quiet: bool,
) -> Result<Progress, Error> {
    let Some(mut filling) = session.filling(kind).take() else { return Ok(Progress::Waiting) };
    let progress = finish_if_right(session, kind, &mut filling, is_quiet);
    *session.filling(kind) = Some(filling);
    progress
}

fn finish_if_right(
    session: &mut Session,
    kind: Kind,
    filling: &mut Filling,
    is_quiet: bool,
) -> Result<Progress, Error> {
    const PATIENCE: Duration = Duration::from_secs(3);
    const PUT_OFF: Duration = Duration::from_secs(30);
    let full_since = *filling.full_since.get_or_insert_with(Instant::now);
    if !is_quiet && full_since.elapsed() < PATIENCE {
        return Ok(Progress::Waiting);
    }
    let name = filling.index_name.clone();
    let counting = filling.counting.get_or_insert_with(|| {
        let elasticsearch = session.elasticsearch.clone();
        Counting::begin(filling.url.clone(), elasticsearch, kind, name.clone())
    });
    let counting = counting.clone();
    let Some(count) = counting.result() else { return Ok(Progress::Waiting) };
    // Another time, anew.
    filling.counting = None;
    let comparison = match count {
        Ok(count) => compare(session, kind, filling, count)?,
        Err(err) => {
            warn!("the new index {name} could not be compared yet: {}", chain(err));
            filling.put_off_until = Some(Instant::now() + PUT_OFF);
            Comparison::Unclear
        }
    };
    match comparison {
        Comparison::Same if finish(session, kind, filling)? => return Ok(Progress::TermOver),
        Comparison::Same => filling.put_off_until = Some(Instant::now() + PUT_OFF),
        // What was touched is looked at when it is settled again.
        Comparison::Unclear => filling.full_since = Some(Instant::now()),
        Comparison::Different(difference) => {
            let Session { conn, elasticsearch, epoch, .. } = session;
            give_up(conn, elasticsearch, kind, *epoch, &name, &difference)?;
            return Ok(Progress::TermOver);
        }
    }
    Ok(Progress::Waiting)
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

/// Compares the new index with the rows: the number of documents, which may differ by the rows that are not
/// settled, and the contents of a random sample and of what was different the last time.
fn compare(
    session: &mut Session,
    kind: Kind,
    filling: &mut Filling,
    Count { before, documents, after }: &Count,
) -> Result<Comparison, Error> {
    let unsettled = before.unsettled.max(after.unsettled);
    let least = before.rows.min(after.rows) - unsettled;
    let most = before.rows.max(after.rows) + unsettled;
    if *documents < least || *documents > most {
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
    let name = &filling.index_name;
    if !session.elasticsearch.keeps_sources(name)? {
        info!(
            "compared {documents} documents of {kind} by number alone: the index {name} does not keep them as they were sent (`_source`)"
        );
        return Ok(Comparison::Same);
    }
    let (wrong, compared) = find_wrong_of_sample(session, kind, filling)?;
    info!("compared {documents} documents of {kind} by number and {compared} by content");
    // Links and genres that nobody has looked at yet make documents differ. If it is something else, they are
    // right in both indices the next time.
    let past: Vec<(Uuid, Timestamp)> = wrong.iter().map(|row| (row.id, row.touched_at)).collect();
    touch(&mut session.conn, kind, &past)?;
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

/// Compares the contents of a random sample and of what was different the last time. Returns the rows of those
/// that are wrong, and of how many it was looked at.
fn find_wrong_of_sample(
    session: &mut Session,
    kind: Kind,
    filling: &Filling,
) -> Result<(Vec<AsRead>, usize), Error> {
    let mut ids = load_random(&mut session.conn, kind, SAMPLE)?;
    ids.extend(filling.different.keys());
    let compared = ids.len();
    Ok((find_wrong(session, kind, &filling.index_name, ids)?, compared))
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
