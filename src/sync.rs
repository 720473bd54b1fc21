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
pub mod outbox;
pub mod session;

use std::time::{Duration, Instant};

use crate::error::Error;
use crate::postgres::outbox::{Queue, drain_touches, expand_related_tombstones};
use crate::postgres::related::fan_out;
use crate::postgres::stamp::retry_rejected;
use crate::postgres::work::load_work;
use crate::sync::session::Session;

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
}

/// How many outbox entries or rows one statement takes.
///
/// Touching 1,000 films takes some 20 ms: that long a writer may find one of them locked.
const CHUNK: i32 = 1_000;

/// A person or genre with more films than this waits with its fan-out until nothing else is pending.
const URGENT_FILMS: i32 = 1_000;

/// How long a step goes on touching before it sends what is pending.
///
/// The longer, the fewer of the films that a bulk insert brings are sent twice, once before and once
/// after their links, people and genres were looked at. The shorter, the less an edited film waits
/// for others' touches.
const TOUCHING_MAX: Duration = Duration::from_secs(1);

/// Does one bounded unit of work.
///
/// # Errors
///
/// Returns an error if either side fails, if another process leads, or if the state has moved. What
/// was acknowledged may not be stamped then, and is sent again, which does no harm.
pub fn step(session: &mut Session) -> Result<Step, Error> {
    session.check_leadership()?;
    session.check_binding_now_and_then()?;
    let work = load_work(&mut session.conn)?;
    if work.epoch != session.epoch {
        return Err(Error::Rival("the state was taken over by another process".to_owned()));
    }
    if work.is_none() {
        session.films.end_of_queue();
        return Ok(Step::Idle);
    }

    let mut documents = 0;
    let mut entries = 0;
    if work.tombstones {
        entries += expand_related_tombstones(&mut session.conn, session.epoch, CHUNK)?;
        documents += outbox::bury(session)?;
    }
    if work.sweeps {
        entries += outbox::sweep(session)?;
    }
    if work.retries {
        entries += retry_rejected(&mut session.conn, CHUNK.unsigned_abs() as usize)? as u64;
    }
    if work.touches || work.fan_outs {
        entries += touch_for_a_while(session)?;
    }
    // The films' queue is emptied before the next chunk of a large fan-out is touched.
    let batch = films::index_batch(session)?;
    documents += batch.acknowledged;
    if batch.is_empty() && work.fan_out_touches {
        entries += drain_touches(&mut session.conn, session.epoch, Queue::FanOut, CHUNK)?;
    }

    if documents > 0 || entries > 0 || batch.stamped > 0 {
        Ok(Step::Progress { documents })
    } else {
        Ok(Step::Blocked)
    }
}

/// Fans out changed persons and genres and touches the films that the outbox asks for, until there
/// are none or the time is over. Returns how many rows and entries were done.
fn touch_for_a_while(session: &mut Session) -> Result<u64, Error> {
    let started = Instant::now();
    let mut done = 0;
    while started.elapsed() < TOUCHING_MAX {
        let conn = &mut session.conn;
        let progress = fan_out(conn, CHUNK, URGENT_FILMS)?
            + drain_touches(conn, session.epoch, Queue::Urgent, CHUNK)?;
        if progress == 0 {
            break;
        }
        done += progress;
    }
    Ok(done)
}
