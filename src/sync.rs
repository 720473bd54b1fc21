//! The engine: what one step does, and the order that makes it safe.
//!
//! A step is a bounded unit of work: at most one chunk of every queue and one batch of each kind of documents,
//! from reading to stamp. Killing the process between any two statements loses nothing, so there is no
//! shutdown code.
//!
//! No transaction stays open while the engine works. Every write of ours is one statement, which
//! checks in itself that what it says is still so: the epoch is the one under which was read, and
//! the row is the one that was read. A lock of ours therefore lasts no longer than a statement, and
//! neither a frozen process nor a slow engine is felt by a writer.

mod answers;
pub mod batch;
mod binding;
pub mod deletions;
mod following;
pub mod leader;
pub mod limits;
pub mod new_index;
pub mod page;
pub mod rate;
mod rebuild;
pub mod senders;
mod sending;
pub mod session;
pub mod touches;

use std::time::Duration;

use crate::error::Error;
use crate::kind::Kind;
use crate::postgres::outbox::{Queue, discard};
use crate::postgres::rejected::retry_rejected;
use crate::postgres::work::Work;
use crate::sync::batch::Batch;
use crate::sync::rebuild::Progress;
use crate::sync::session::Session;

/// What one step did.
#[derive(Debug)]
#[must_use]
pub enum Step {
    /// Nothing is pending.
    Idle,
    /// What is pending is held by writers; nothing can be done for the moment.
    Blocked,
    /// A command has asked for something, or a new index has taken the place of the live one: a new term is to
    /// begin at once.
    TermOver,
    /// Documents are on their way, and none was answered yet.
    Sent,
    /// Something was done. There may be more.
    Progress {
        /// Documents that the engine acknowledged, deletions included.
        documents: usize,
    },
    /// The engine put some documents off, or answered in no way that we know. Others may have been
    /// acknowledged; the next step goes on behind them, and comes back to them in the end.
    Partial {
        /// Documents that the engine acknowledged, deletions included.
        documents: usize,
        /// Why the others were not; the last reason.
        failure: Error,
    },
}

/// How many outbox entries or rows one statement takes.
///
/// Touching 1,000 films takes some 20 ms: that long a writer may find one of them locked.
const CHUNK: i32 = 1_000;

/// How many entries of the outbox are forgotten at a time that concern no index. No row is locked for it.
const DISCARD_CHUNK: i32 = 10_000;

/// Does one bounded unit of work.
///
/// # Errors
///
/// Returns an error if either side fails, if another process leads, or if the state has moved. What
/// was acknowledged may not be stamped then, and is sent again, which does no harm.
pub fn step(session: &mut Session) -> Result<Step, Error> {
    session.check_leadership()?;
    let Some(work) = session.load_work()? else { return Ok(Step::TermOver) };
    session.check_binding_now_and_then()?;
    let mut done = Done::default();
    if work.is_none() {
        session.end_of_queues()?;
    } else {
        do_work(session, &work, &mut done)?;
    }
    let mut is_idle = work.is_none();
    for kind in session.filled_in_turn() {
        is_idle = false;
        match rebuild::advance(session, kind, work.is_none())? {
            Progress::Sent => done.has_sent = true,
            Progress::Waiting => (),
            Progress::TermOver => return Ok(Step::TermOver),
        }
    }
    // As long as there is more to hand out, an answer is not waited for.
    let patience = if done.has_sent || done.has_touched { Duration::ZERO } else { batch::PATIENCE };
    done.add(batch::settle_answered(session, patience)?);
    done.has_sent |= !session.open.is_empty();
    Ok(done.into_step(is_idle))
}

/// Does what there is to do, at most one chunk of each queue and one page of each kind.
fn do_work(session: &mut Session, work: &Work, done: &mut Done) -> Result<(), Error> {
    if work.has_any("retry") {
        for kind in session.kinds() {
            done.entries += retry_rejected(&mut session.conn, kind, CHUNK)?;
        }
    }
    for kind in Kind::ALL.into_iter().filter(|kind| !session.bound.contains(kind)) {
        if ["touch", "touch_later", "tombstone", "purge"].iter().any(|op| work.has(op, kind)) {
            done.entries += discard(&mut session.conn, kind, DISCARD_CHUNK)?;
        }
    }
    if ["sweep", "fan_out", "touch"].iter().any(|op| work.has_any(op)) {
        done.entries += touches::touch_for_a_while(session)?;
    }
    for kind in session.kinds_in_turn() {
        index_kind(session, kind, work, done)?;
    }
    // Those who are in no hurry have their turn when the pages have room.
    if work.has_any(Queue::Later.op()) && !done.has_full_page {
        let touched = touches::touch_chunks(session, Queue::Later)?;
        done.entries += touched;
        done.has_touched = touched > 0;
    }
    Ok(())
}

/// Sends what is pending of one kind: a page of rows, then deletions.
fn index_kind(
    session: &mut Session,
    kind: Kind,
    work: &Work,
    done: &mut Done,
) -> Result<(), Error> {
    // What was touched just now is pending, too.
    if work.has("pending", kind) || done.entries > 0 {
        let mut batch = batch::index_batch(session, kind)?;
        if !batch.is_full && session.is_loading(kind) {
            batch.add(batch::settle_all(session)?);
            if batch.failure.is_none() {
                session.end_loading(kind)?;
            }
        }
        done.add(batch);
    }
    if work.has("tombstone", kind) {
        done.documents += put_off(&mut done.failure, deletions::bury(session, kind))?;
    }
    if work.has("purge", kind) {
        // Documents on their way may be of rows that are gone, see `deletions::bury`.
        done.add(batch::settle_all(session)?);
        done.entries += put_off(&mut done.failure, deletions::purge(session, kind))?;
    }
    Ok(())
}

/// What was done so far in a step.
#[derive(Debug, Default)]
struct Done {
    documents: usize,
    /// Rows and entries of the outbox.
    entries: u64,
    has_full_page: bool,
    has_sent: bool,
    /// There is more to hand out.
    has_touched: bool,
    /// Why some documents alone were not sent.
    failure: Option<Error>,
}

impl Done {
    fn add(&mut self, batch: Batch) {
        self.documents += batch.acknowledged;
        self.entries += batch.settled as u64;
        self.has_full_page |= batch.is_full;
        self.has_sent |= batch.has_sent;
        self.failure = self.failure.take().or(batch.failure);
    }

    fn into_step(self, is_idle: bool) -> Step {
        let Self { documents, entries, has_sent, failure, .. } = self;
        match failure {
            Some(failure) => Step::Partial { documents, failure },
            None if documents > 0 || entries > 0 => Step::Progress { documents },
            None if has_sent => Step::Sent,
            None if is_idle => Step::Idle,
            None => Step::Blocked,
        }
    }
}

/// Lets one kind of work that failed for some documents alone not keep the others from theirs.
fn put_off<T: Default>(failure: &mut Option<Error>, result: Result<T, Error>) -> Result<T, Error> {
    match result {
        Err(err) if err.concerns_single_documents() => {
            failure.get_or_insert(err);
            Ok(T::default())
        }
        result => result,
    }
}
