//! Touching rows: what the outbox asks for, and what changed rows ask for by way of it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::kind::Kind;
use crate::postgres::outbox::{Queue, drain_touches, expand_sweeps};
use crate::postgres::related::{expand_fan_outs, note_fan_outs};
use crate::sync::CHUNK;
use crate::sync::session::Session;

/// What is linked to a row with more links than this is touched after everything else.
const URGENT_ROWS: i32 = 1_000;

/// How many rows are looked at for a truncated table at a time; some 150 ms, and none of them is locked.
const SWEEP_CHUNK: i32 = 10_000;

/// How long a step goes on touching before it sends what is pending.
///
/// The longer, the fewer of the films that a bulk insert brings are sent twice, once before and once
/// after their links, people and genres were looked at. The shorter, the less an edited film waits
/// for others' touches.
const TOUCHING_MAX: Duration = Duration::from_secs(1);

/// Where to go on in the queues: behind entries whose rows are all held by writers. From the start
/// again once the end is reached, or once something could be done.
pub type Places = HashMap<(Queue, Kind), i64>;

/// Looks at truncated tables, fans out changed rows and touches others, until there is nothing to do or the
/// time is over. Returns how many rows and entries were done.
///
/// # Errors
///
/// Returns an error if PostgreSQL fails. What was touched until then is pending.
pub fn touch_for_a_while(session: &mut Session) -> Result<u64, Error> {
    let started = Instant::now();
    let mut done = expand_sweeps(&mut session.conn, session.epoch, SWEEP_CHUNK)?;
    while started.elapsed() < TOUCHING_MAX {
        let progress = note_fan_outs(&mut session.conn, CHUNK)?
            + expand_fan_outs(&mut session.conn, session.epoch, URGENT_ROWS)?
            + touch_chunks(session, Queue::Urgent)?;
        let is_within_queue =
            session.places.iter().any(|((queue, _), place)| *queue == Queue::Urgent && *place > 0);
        if progress == 0 && !is_within_queue {
            break;
        }
        done += progress;
    }
    Ok(done)
}

/// Touches one chunk of rows of each kind that has an index. Returns how many entries were done.
///
/// # Errors
///
/// Returns an error if PostgreSQL fails. Nothing of this kind has been touched then.
pub fn touch_chunks(session: &mut Session, queue: Queue) -> Result<u64, Error> {
    let mut done = 0;
    for kind in session.bound.clone() {
        done += touch_chunk(session, queue, kind)?;
    }
    Ok(done)
}

fn touch_chunk(session: &mut Session, queue: Queue, kind: Kind) -> Result<u64, Error> {
    let place = session.places.entry((queue, kind)).or_default();
    let drained = drain_touches(&mut session.conn, session.epoch, queue, kind, *place, CHUNK)?;
    *place = if drained.forgotten == 0 { drained.last_id.unwrap_or(0) } else { 0 };
    Ok(drained.forgotten.unsigned_abs())
}
