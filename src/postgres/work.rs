//! The look for work: what is pending, in one statement that costs the same on an idle catalogue
//! of a thousand films and of ten million.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool};

use super::film_work::PENDING;
use super::statement::statement;
use super::{Connection, Error};

/// What there is to do, and under which epoch it was seen.
#[expect(clippy::struct_excessive_bools, reason = "one answer for each kind of work")]
#[derive(Debug, Clone, Copy, QueryableByName)]
pub struct Work {
    /// The epoch of the state.
    #[diesel(sql_type = BigInt)]
    pub epoch: i64,
    /// Films are to be touched.
    #[diesel(sql_type = Bool)]
    pub touches: bool,
    /// Films of a person or genre with very many are to be touched.
    #[diesel(sql_type = Bool)]
    pub later_touches: bool,
    /// Rows were deleted.
    #[diesel(sql_type = Bool)]
    pub tombstones: bool,
    /// Tables were truncated.
    #[diesel(sql_type = Bool)]
    pub sweeps: bool,
    /// Persons or genres changed.
    #[diesel(sql_type = Bool)]
    pub fan_outs: bool,
    /// The pause after a rejection is over.
    #[diesel(sql_type = Bool)]
    pub retries: bool,
    /// Films are pending.
    #[diesel(sql_type = Bool)]
    pub films: bool,
}

impl Work {
    /// Returns true if there is nothing to do.
    #[must_use]
    pub fn is_none(&self) -> bool {
        !(self.touches
            || self.later_touches
            || self.tombstones
            || self.sweeps
            || self.fan_outs
            || self.retries
            || self.films)
    }
}

/// Looks for work, from the start of every queue.
///
/// # Errors
///
/// Returns an error if the statement fails.
pub fn load_work(conn: &mut Connection) -> Result<Work, Error> {
    // Each line reads one entry of a database index made for it. ORDER BY, and not EXISTS alone,
    // so that no plan reads a table full of dead rows from its beginning.
    statement(format!(
        "SELECT epoch,
            EXISTS (SELECT FROM (SELECT FROM etl.outbox WHERE op = 'touch' ORDER BY id LIMIT 1) o) AS touches,
            EXISTS (SELECT FROM (SELECT FROM etl.outbox WHERE op = 'touch_later' ORDER BY id LIMIT 1) o) AS later_touches,
            EXISTS (SELECT FROM (SELECT FROM etl.outbox WHERE op = 'tombstone' ORDER BY id LIMIT 1) o) AS tombstones,
            EXISTS (SELECT FROM (SELECT FROM etl.outbox WHERE op = 'sweep' ORDER BY id LIMIT 1) o) AS sweeps,
            EXISTS (SELECT FROM (SELECT FROM etl.outbox WHERE op = 'fan_out' ORDER BY id LIMIT 1) o)
            OR EXISTS (SELECT FROM (SELECT FROM content.person WHERE fanned_out_at IS NULL
                ORDER BY touched_at, id LIMIT 1) p)
            OR EXISTS (SELECT FROM (SELECT FROM content.genre WHERE fanned_out_at IS NULL
                ORDER BY touched_at, id LIMIT 1) g) AS fan_outs,
            EXISTS (SELECT FROM (SELECT FROM etl.rejected WHERE retry_at <= now()
                ORDER BY retry_at LIMIT 1) r) AS retries,
            EXISTS (SELECT FROM (SELECT FROM content.film_work WHERE {PENDING}
                ORDER BY touched_at, id LIMIT 1) f) AS films
         FROM etl.state WHERE kind = 'movies'"
    ))
    .get_result(conn)
    .map_err(Error::query("look for work"))
}
