//! What is written to a film after the engine has answered: the stamp, the touch. The rejection is in
//! [`super::rejected`].
//!
//! The statements are functions of the database (see `migrations/`), which check in themselves that
//! the row is the one that was read, and that the epoch is still the same.

use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Nullable, Timestamptz, Uuid as SqlUuid};
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
