//! What is written to a film after the engine has answered: the stamp, the rejection, the touch.
//!
//! The statements are functions of the database (see `migrations/`), which check in themselves that
//! the row is the one that was read, and that the epoch is still the same.

use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use uuid::Uuid;

use super::statement::statement;
use super::{Connection, Error, Timestamp, version_of};

/// A row as it was when its document was built: the stamp is written only if it still is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AsRead {
    /// The film.
    pub id: Uuid,
    /// Its last touch.
    pub touched_at: Timestamp,
    /// The users' own time of change.
    pub modified: Option<Timestamp>,
}

impl AsRead {
    /// Returns the version of the document of this row, microseconds since 1970.
    #[must_use]
    pub fn version(&self) -> i64 {
        version_of(self.touched_at)
    }
}

#[derive(QueryableByName)]
struct IdRow {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
}

fn into_ids(rows: Vec<IdRow>) -> Vec<Uuid> {
    rows.into_iter().map(|row| row.id).collect()
}

/// The columns of rows that were read, each an array for one bind.
struct Columns {
    ids: Vec<Uuid>,
    touched_ats: Vec<Timestamp>,
    modifieds: Vec<Option<Timestamp>>,
}

impl Columns {
    fn of<'a>(rows: impl Iterator<Item = &'a AsRead> + Clone) -> Self {
        Self {
            ids: rows.clone().map(|row| row.id).collect(),
            touched_ats: rows.clone().map(|row| row.touched_at).collect(),
            modifieds: rows.map(|row| row.modified).collect(),
        }
    }
}

/// Stamps the films that are still as they were read, if the epoch is, too.
///
/// Returns the ids of those that it stamped. The others have changed, and are pending as they are
/// now; or a writer holds them. One statement.
///
/// # Errors
///
/// Returns an error if the statement fails; all or none are stamped then.
pub fn stamp(conn: &mut Connection, epoch: i64, rows: &[AsRead]) -> Result<Vec<Uuid>, Error> {
    let columns = Columns::of(rows.iter());
    statement("SELECT * FROM etl.stamp_film_works($1, $2, $3, $4) AS s (id)")
        .bind::<BigInt, _>(epoch)
        .bind::<Array<SqlUuid>, _>(columns.ids)
        .bind::<Array<Timestamptz>, _>(columns.touched_ats)
        .bind::<Array<Nullable<Timestamptz>>, _>(columns.modifieds)
        .load(conn)
        .map(into_ids)
        .map_err(Error::query("stamp films"))
}

/// Why the engine refuses a document as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The film, as it was when its document was built.
    pub film: AsRead,
    /// The engine's word for the kind of error.
    pub error_type: String,
    /// The engine's explanation. It may hold data of the document.
    pub reason: String,
}

/// Records the films whose documents were refused, if they are still as they were read. They are
/// not pending until they change, or until a growing pause is over. One statement.
///
/// Returns the ids of those that it recorded; the others have changed, or a writer holds them.
///
/// # Errors
///
/// Returns an error if the statement fails; all or none are recorded then.
pub fn reject(
    conn: &mut Connection,
    epoch: i64,
    rejections: &[Rejection],
) -> Result<Vec<Uuid>, Error> {
    let columns = Columns::of(rejections.iter().map(|rejection| &rejection.film));
    let versions: Vec<i64> = rejections.iter().map(|r| r.film.version()).collect();
    let error_types: Vec<&str> = rejections.iter().map(|r| &*r.error_type).collect();
    let reasons: Vec<&str> = rejections.iter().map(|r| &*r.reason).collect();
    statement("SELECT * FROM etl.reject_film_works($1, $2, $3, $4, $5, $6, $7) AS r (id)")
        .bind::<BigInt, _>(epoch)
        .bind::<Array<SqlUuid>, _>(columns.ids)
        .bind::<Array<Timestamptz>, _>(columns.touched_ats)
        .bind::<Array<Nullable<Timestamptz>>, _>(columns.modifieds)
        .bind::<Array<BigInt>, _>(versions)
        .bind::<Array<Text>, _>(error_types)
        .bind::<Array<Text>, _>(reasons)
        .load(conn)
        .map(into_ids)
        .map_err(Error::query("record rejected documents"))
}

/// Touches films, each past the given moment. One statement.
///
/// Returns the ids of those that it touched; a writer holds the others, or they are gone.
///
/// # Errors
///
/// Returns an error if the statement fails; all or none are touched then.
pub fn touch(conn: &mut Connection, past: &[(Uuid, Timestamp)]) -> Result<Vec<Uuid>, Error> {
    let (ids, moments): (Vec<Uuid>, Vec<Timestamp>) = past.iter().copied().unzip();
    statement("SELECT * FROM etl.touch_film_works($1, $2) AS t (id)")
        .bind::<Array<SqlUuid>, _>(ids)
        .bind::<Array<Timestamptz>, _>(moments)
        .load(conn)
        .map(into_ids)
        .map_err(Error::query("touch films"))
}

/// Makes the rejected films pending again whose pause is over. Returns how many. One statement.
///
/// # Errors
///
/// Returns an error if the statement fails; none is pending again then.
pub fn retry_rejected(conn: &mut Connection, row_limit: i32) -> Result<usize, Error> {
    // The next pause is set when the document is refused again; the hour is for a film that is
    // locked now. A film that is gone has nothing to be tried again.
    statement(
        "WITH due AS (
            SELECT kind, row_id FROM etl.rejected WHERE retry_at <= now()
            ORDER BY retry_at LIMIT $1 FOR UPDATE SKIP LOCKED
         ), postponed AS (
            UPDATE etl.rejected r SET retry_at = clock_timestamp() + interval '1 hour'
            FROM due JOIN content.film_work f ON f.id = due.row_id
            WHERE (r.kind, r.row_id) = (due.kind, due.row_id)
         ), gone AS (
            DELETE FROM etl.rejected r USING due
            WHERE (r.kind, r.row_id) = (due.kind, due.row_id)
                AND NOT EXISTS (SELECT FROM content.film_work f WHERE f.id = due.row_id)
         )
         SELECT t.id FROM (SELECT array_agg(row_id) AS ids FROM due) AS d,
            etl.touch_film_works(d.ids) AS t (id)",
    )
    .bind::<Integer, _>(row_limit)
    .execute(conn)
    .map_err(Error::query("try rejected films again"))
}
