//! The engine: what one step does, and the order that makes it safe.
//!
//! A step is a bounded unit of work: at most one chunk of every queue and one batch of films, from
//! reading to stamp. Killing the process between any two statements loses nothing, so there is no
//! shutdown code.
//!
//! No transaction stays open while the engine works. Every write of ours is one statement, which
//! checks in itself that what it says is still so: the epoch is the one under which was read, and
//! the row is the one that was read. A lock of ours therefore lasts no longer than a statement, and
//! neither a frozen process nor a slow engine is felt by a writer.

mod answers;
pub mod films;
pub mod leader;
pub mod limits;
pub mod new_index;
pub mod outbox;
pub mod session;
pub mod touches;

use crate::error::Error;
use crate::postgres::outbox::Queue;
use crate::postgres::rejected::retry_rejected;
use crate::postgres::work::load_work;
use crate::sync::session::Session;

/// What one step did.
#[derive(Debug)]
#[must_use]
pub enum Step {
    /// Nothing is pending.
    Idle,
    /// What is pending is held by writers; nothing can be done for the moment.
    Blocked,
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

/// Does one bounded unit of work.
///
/// # Errors
///
/// Returns an error if either side fails, if another process leads, or if the state has moved. What
/// was acknowledged may not be stamped then, and is sent again, which does no harm.
pub fn step(session: &mut Session) -> Result<Step, Error> {
    session.check_leadership()?;
    let work = load_work(&mut session.conn)?;
    if work.epoch != session.epoch {
        return Err(Error::Rival("the state was taken over by another process".to_owned()));
    }
    session.check_binding_now_and_then()?;
    if work.is_none() {
        session.films.end_of_queue();
        return Ok(Step::Idle);
    }

    let mut entries = 0;
    if work.retries {
        entries += retry_rejected(&mut session.conn, CHUNK)? as u64;
    }
    if work.touches || work.fan_outs {
        entries += touches::touch_for_a_while(session)?;
    }
    let batch = films::index_batch(session)?;
    let mut failure = batch.failure;
    let mut documents = batch.acknowledged;
    if work.tombstones {
        documents += put_off(&mut failure, outbox::bury(session))?;
    }
    // Those who are in no hurry have their turn when the page has room.
    if work.later_touches && !batch.is_full {
        entries += touches::touch_chunk(session, Queue::Later)?;
    }
    if work.sweeps {
        entries += put_off(&mut failure, outbox::sweep(session))?;
    }
    match failure {
        Some(failure) => Ok(Step::Partial { documents, failure }),
        None if documents > 0 || entries > 0 || batch.settled > 0 => {
            Ok(Step::Progress { documents })
        }
        None => Ok(Step::Blocked),
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
