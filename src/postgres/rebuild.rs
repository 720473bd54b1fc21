//! Indices that are made anew beside the live ones: what was asked for, and how far each has come.

mod count;
mod progress;
mod switch;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Nullable, Text, Uuid as SqlUuid};
use uuid::Uuid;

pub use self::count::{RowCount, count_rows};
pub use self::progress::{begin_filling, fail, note_trouble, rename, save_filled};
pub use self::switch::{
    begin_switching, find_retired, finish_switching, forget_retired, put_off_switching,
};
use super::statement::statement;
use super::{Connection, Error};
use crate::kind::Kind;

/// How far a new index has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It is to be made.
    Requested,
    /// Whatever is sent goes to both indices, and all rows once to the new one.
    Filling,
    /// It has everything, and is taking the place of the live one.
    Switching,
    /// It is to be removed.
    Cancelled,
    /// It was given up.
    Failed,
}

impl Phase {
    fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Filling => "filling",
            Self::Switching => "switching",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }

    fn parse(raw: &str) -> Self {
        let all = [Self::Requested, Self::Filling, Self::Switching, Self::Cancelled, Self::Failed];
        all.into_iter().find(|phase| phase.as_str() == raw).expect("the table checks the words")
    }
}

/// A new index beside the live one.
#[derive(Debug, Clone)]
pub struct Rebuild {
    /// How far it has come.
    pub phase: Phase,
    /// Its name, chosen before it is made.
    pub index_name: String,
    /// The engine's own. `None` before it is made.
    pub index_uuid: Option<String>,
    /// Its definition (JSON), if it is not the one that comes with the program.
    pub mapping: Option<String>,
    /// The settings (JSON) that it is to have once it is filled.
    pub settings: Option<String>,
    /// The index that was live stays.
    pub keep_old: bool,
    /// The documents of all rows up to this id have been sent.
    pub filled_to: Option<Uuid>,
    /// How many documents that were.
    pub documents: u64,
    /// About how many there are in all.
    pub expected: u64,
    /// Why it was given up.
    pub failure: Option<String>,
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    phase: String,
    #[diesel(sql_type = Text)]
    index_name: String,
    #[diesel(sql_type = Nullable<Text>)]
    index_uuid: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    mapping: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    settings: Option<String>,
    #[diesel(sql_type = Bool)]
    keep_old: bool,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    filled_to: Option<Uuid>,
    #[diesel(sql_type = BigInt)]
    documents: i64,
    #[diesel(sql_type = BigInt)]
    expected: i64,
    #[diesel(sql_type = Nullable<Text>)]
    failure: Option<String>,
}

impl From<Row> for Rebuild {
    fn from(row: Row) -> Self {
        Self {
            phase: Phase::parse(&row.phase),
            index_name: row.index_name,
            index_uuid: row.index_uuid,
            mapping: row.mapping,
            settings: row.settings,
            keep_old: row.keep_old,
            filled_to: row.filled_to,
            documents: row.documents.unsigned_abs(),
            expected: row.expected.unsigned_abs(),
            failure: row.failure,
        }
    }
}

/// Loads the new index of a kind, if one was asked for.
///
/// # Errors
///
/// Returns an error if the statement fails.
pub fn load_rebuild(conn: &mut Connection, kind: Kind) -> Result<Option<Rebuild>, Error> {
    statement(
        "SELECT phase, index_name, index_uuid, mapping, settings, keep_old, filled_to, documents, expected, failure
         FROM etl.rebuild WHERE kind = $1",
    )
    .bind::<Text, _>(kind.table())
    .get_result(conn)
    .optional()
    .map(|row: Option<Row>| row.map(Rebuild::from))
    .map_err(Error::query("look for a new index"))
}

/// Asks for a new index of a kind, and moves the epoch, so that whoever leads begins with it. One that was
/// given up is replaced. Returns false if one is under way already. One statement.
///
/// # Errors
///
/// Returns an error if the statement fails; nothing was asked for then.
pub fn request(
    conn: &mut Connection,
    kind: Kind,
    index_name: &str,
    mapping: Option<&str>,
    keep_old: bool,
) -> Result<bool, Error> {
    statement(
        "WITH requested AS (
            INSERT INTO etl.rebuild AS r (kind, index_name, mapping, keep_old)
            VALUES ($1, $2, $3, $4)
            ON CONFLICT (kind) DO UPDATE SET
                phase = 'requested', index_name = excluded.index_name, index_uuid = NULL,
                mapping = excluded.mapping, settings = NULL, keep_old = excluded.keep_old,
                filled_to = NULL, documents = 0, failure = NULL, troubled_since = NULL,
                requested_at = clock_timestamp()
            WHERE r.phase = 'failed'
            RETURNING 1
         )
         UPDATE etl.term SET epoch = epoch + 1 WHERE EXISTS (SELECT FROM requested)",
    )
    .bind::<Text, _>(kind.table())
    .bind::<Text, _>(index_name)
    .bind::<Nullable<Text>, _>(mapping)
    .bind::<Bool, _>(keep_old)
    .execute(conn)
    .map(|moved| moved > 0)
    .map_err(Error::query("ask for a new index"))
}

/// Asks for the new index of a kind to be removed, and moves the epoch: the live one alone counts from now on.
///
/// Returns its name, under which nothing is live any more; nothing if there is none, or if it is taking the place
/// of the live one. One statement.
///
/// # Errors
///
/// Returns an error if the statement fails; nothing has changed then.
pub fn cancel(conn: &mut Connection, kind: Kind) -> Result<Option<String>, Error> {
    #[derive(QueryableByName)]
    struct Cancelled {
        #[diesel(sql_type = Text)]
        index_name: String,
    }
    statement(
        "WITH cancelled AS (
            UPDATE etl.rebuild SET phase = 'cancelled' WHERE kind = $1 AND phase <> 'switching'
            RETURNING index_name
         ), moved AS (
            UPDATE etl.term SET epoch = epoch + 1 WHERE EXISTS (SELECT FROM cancelled)
         )
         SELECT index_name FROM cancelled",
    )
    .bind::<Text, _>(kind.table())
    .get_result(conn)
    .optional()
    .map(|row: Option<Cancelled>| row.map(|row| row.index_name))
    .map_err(Error::query("cancel a new index"))
}

/// Forgets a new index that was cancelled or given up, and has been removed. One statement.
///
/// # Errors
///
/// Returns an error if the statement fails; it is removed once more then.
pub fn forget_rebuild(conn: &mut Connection, kind: Kind) -> Result<(), Error> {
    statement("DELETE FROM etl.rebuild WHERE kind = $1 AND phase IN ('cancelled', 'failed')")
        .bind::<Text, _>(kind.table())
        .execute(conn)
        .map(drop)
        .map_err(Error::query("forget a new index"))
}
