//! Touching films: what the outbox asks for, and what persons and genres ask for by way of it.

use std::time::{Duration, Instant};

use crate::error::Error;
use crate::postgres::outbox::{Queue, drain_touches};
use crate::postgres::related::{expand_fan_outs, note_fan_outs};
use crate::sync::CHUNK;
use crate::sync::session::Session;

/// The films of a person or genre with more than this are touched after everything else.
const URGENT_FILMS: i32 = 1_000;

/// How long a step goes on touching before it sends what is pending.
///
/// The longer, the fewer of the films that a bulk insert brings are sent twice, once before and once
/// after their links, people and genres were looked at. The shorter, the less an edited film waits
/// for others' touches.
const TOUCHING_MAX: Duration = Duration::from_secs(1);

/// Where to go on in the queues: behind entries whose films are all held by writers. From the start
/// again once the end is reached, or once something could be done.
#[derive(Debug, Default)]
pub struct Places {
    urgent: i64,
    later: i64,
}

/// Fans out changed persons and genres and touches films, until there is nothing to do or the time is
/// over. Returns how many rows and entries were done.
///
/// # Errors
///
/// Returns an error if PostgreSQL fails. What was touched until then is pending.
pub fn touch_for_a_while(session: &mut Session) -> Result<u64, Error> {
    let started = Instant::now();
    let mut done = 0;
    while started.elapsed() < TOUCHING_MAX {
        let progress = note_fan_outs(&mut session.conn, CHUNK)?
            + expand_fan_outs(&mut session.conn, session.epoch, URGENT_FILMS)?
            + touch_chunk(session, Queue::Urgent)?;
        if progress == 0 && session.places.urgent == 0 {
            break;
        }
        done += progress;
    }
    Ok(done)
}

/// Touches one chunk of films. Returns how many entries were done.
///
/// # Errors
///
/// Returns an error if PostgreSQL fails. Nothing has been touched then.
pub fn touch_chunk(session: &mut Session, queue: Queue) -> Result<u64, Error> {
    let place = match queue {
        Queue::Urgent => &mut session.places.urgent,
        Queue::Later => &mut session.places.later,
    };
    let drained = drain_touches(&mut session.conn, session.epoch, queue, *place, CHUNK)?;
    *place = if drained.forgotten == 0 { drained.last_id.unwrap_or(0) } else { 0 };
    Ok(drained.forgotten.unsigned_abs())
}
