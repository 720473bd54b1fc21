//! What is written to a row after the engine has answered: the stamp, the touch. The rejection is in
//! [`super::rejected`].
//!
//! The statements are functions of the database (see `migrations/`), which check in themselves that
//! the row is the one that was read, and that the epoch is still the same.

use std::collections::HashSet;

use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use uuid::Uuid;

use super::statement::statement;
use super::{Connection, Error, Timestamp, version_of};
use crate::kind::Kind;

/// A row as it was when its document was built: the stamp is written only if it still is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, QueryableByName)]
pub struct AsRead {
    /// Its key, and the `_id` of its document.
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    /// Its last touch, which gives the version of its document.
    #[diesel(sql_type = Timestamptz)]
    pub touched_at: Timestamp,
    /// The users' own time of change.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub modified: Option<Timestamp>,
}

impl AsRead {
    /// Returns the version of the document of this row, microseconds since 1970.
    #[must_use]
    pub fn version(&self) -> i64 {
        version_of(self.touched_at)
    }

    /// A row with the lowest of everything.
    #[cfg(test)]
    pub(crate) fn nil() -> Self {
        Self {
            id: Uuid::nil(),
            touched_at: super::pending::Position::START.touched_at,
            modified: None,
        }
    }
}

#[derive(QueryableByName)]
pub(super) struct IdRow {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
}

pub(super) fn into_ids(rows: Vec<IdRow>) -> Vec<Uuid> {
    rows.into_iter().map(|row| row.id).collect()
}

/// The columns of rows that were read, each an array for one bind.
pub(super) struct Columns {
    pub ids: Vec<Uuid>,
    pub touched_ats: Vec<Timestamp>,
    pub modifieds: Vec<Option<Timestamp>>,
}

impl Columns {
    pub fn of<'a>(rows: impl Iterator<Item = &'a AsRead> + Clone) -> Self {
        Self {
            ids: rows.clone().map(|row| row.id).collect(),
            touched_ats: rows.clone().map(|row| row.touched_at).collect(),
            modifieds: rows.map(|row| row.modified).collect(),
        }
    }
}

/// Stamps the rows that are still as they were read, if the epoch is, too.
///
/// Returns the ids of those that it stamped. The others have changed, and are pending as they are
/// now; or a writer holds them. One statement.
///
/// # Errors
///
/// Returns an error if the statement fails; all or none are stamped then.
pub fn stamp(
    conn: &mut Connection,
    kind: Kind,
    epoch: i64,
    rows: &[AsRead],
) -> Result<Vec<Uuid>, Error> {
    let columns = Columns::of(rows.iter());
    statement("SELECT * FROM etl.stamp_rows($1, $2, $3, $4, $5) AS s (id)")
        .bind::<Text, _>(kind.table())
        .bind::<BigInt, _>(epoch)
        .bind::<Array<SqlUuid>, _>(columns.ids)
        .bind::<Array<Timestamptz>, _>(columns.touched_ats)
        .bind::<Array<Nullable<Timestamptz>>, _>(columns.modifieds)
        .load(conn)
        .map(into_ids)
        .map_err(Error::query("stamp rows"))
}

/// Touches rows, each past the given moment. One statement.
///
/// Returns the ids of those that it touched; a writer holds the others, or they are gone.
///
/// # Errors
///
/// Returns an error if the statement fails; all or none are touched then.
pub fn touch(
    conn: &mut Connection,
    kind: Kind,
    past: &[(Uuid, Timestamp)],
) -> Result<Vec<Uuid>, Error> {
    let (ids, moments): (Vec<Uuid>, Vec<Timestamp>) = past.iter().copied().unzip();
    statement("SELECT * FROM etl.touch_rows($1, $2, $3) AS t (id)")
        .bind::<Text, _>(kind.table())
        .bind::<Array<SqlUuid>, _>(ids)
        .bind::<Array<Timestamptz>, _>(moments)
        .load(conn)
        .map(into_ids)
        .map_err(Error::query("touch rows"))
}

/// Touches rows that an index holds in higher versions than theirs, each past the moment of its version.
///
/// The others are newer than what it holds, or the same. Returns false if a writer holds some of those that are to be
/// touched. Two statements.
///
/// # Errors
///
/// Returns an error if a statement fails; all or none are touched then.
pub fn touch_behind(
    conn: &mut Connection,
    kind: Kind,
    held: &[(Uuid, Timestamp)],
) -> Result<bool, Error> {
    if held.is_empty() {
        return Ok(true);
    }
    let table = kind.table();
    let (ids, moments): (Vec<Uuid>, Vec<Timestamp>) = held.iter().copied().unzip();
    let behind: HashSet<Uuid> = statement(format!(
        "SELECT h.id FROM unnest($1, $2) AS h (id, moment)
         JOIN content.{table} r ON r.id = h.id AND r.touched_at < h.moment"
    ))
    .bind::<Array<SqlUuid>, _>(ids)
    .bind::<Array<Timestamptz>, _>(moments)
    .load(conn)
    .map(|rows| into_ids(rows).into_iter().collect())
    .map_err(Error::query("look which rows an index holds in higher versions"))?;
    let past: Vec<(Uuid, Timestamp)> =
        held.iter().copied().filter(|(id, _)| behind.contains(id)).collect();
    Ok(touch(conn, kind, &past)?.len() == past.len())
}

/// Returns which of the rows are not settled: changed since they were read, pending, rejected, or gone. One
/// statement.
///
/// # Errors
///
/// Returns an error if the statement fails.
pub fn find_unsettled(
    conn: &mut Connection,
    kind: Kind,
    rows: &[AsRead],
) -> Result<HashSet<Uuid>, Error> {
    if rows.is_empty() {
        return Ok(HashSet::new());
    }
    let columns = Columns::of(rows.iter());
    let table = kind.table();
    statement(format!(
        "SELECT a.id FROM unnest($1, $2) AS a (id, touched_at)
         WHERE NOT EXISTS (
            SELECT FROM content.{table} r
            WHERE r.id = a.id AND r.touched_at = a.touched_at AND r.indexed_at IS NOT NULL
                AND r.rejected_at IS NULL AND (r.modified IS NULL OR r.modified <= r.indexed_at))"
    ))
    .bind::<Array<SqlUuid>, _>(columns.ids)
    .bind::<Array<Timestamptz>, _>(columns.touched_ats)
    .load(conn)
    .map(|rows| into_ids(rows).into_iter().collect())
    .map_err(Error::query("look which rows are settled"))
}
