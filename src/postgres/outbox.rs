//! The outbox: what writers leave behind when a row cannot say it of itself.
//!
//! An entry is forgotten in the statement that does what it asks for, or, where that is the
//! engine's to do, after the engine has acknowledged it. Every forgetting is fenced by the epoch.

use diesel::prelude::*;
use diesel::sql_types::{
    Array, BigInt, Bool, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use uuid::Uuid;

use super::statement::statement;
use super::{Connection, Error, Timestamp};
use crate::kind::Kind;

/// The entries of one kind of urgency that ask for rows to be touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Queue {
    /// Changed links, and what is linked to rows with few links.
    Urgent,
    /// What is linked to a row that has very many.
    Later,
}

impl Queue {
    /// Returns the name of these entries.
    #[must_use]
    pub fn op(self) -> &'static str {
        match self {
            Self::Urgent => "touch",
            Self::Later => "touch_later",
        }
    }
}

/// A row that was deleted, or whose id was changed.
#[derive(Debug, Clone, QueryableByName)]
pub struct Tombstone {
    /// The key of the outbox entry.
    #[diesel(sql_type = BigInt)]
    pub entry_id: i64,
    /// The row.
    #[diesel(sql_type = SqlUuid)]
    pub row_id: Uuid,
    /// Taken at the deletion, past all that the row ever had.
    #[diesel(sql_type = Timestamptz)]
    pub version: Timestamp,
    /// There is a row of this id now.
    #[diesel(sql_type = Bool)]
    pub is_back: bool,
}

/// A table was truncated, and the index is to follow.
#[derive(Debug, Clone, QueryableByName)]
pub struct Purge {
    /// The key of the outbox entry.
    #[diesel(sql_type = BigInt)]
    pub entry_id: i64,
    /// Taken before the deletion.
    #[diesel(sql_type = Timestamptz)]
    pub version: Timestamp,
}

#[derive(QueryableByName)]
struct CountRow {
    #[diesel(sql_type = BigInt)]
    entries: i64,
}

/// What became of a chunk of entries.
#[derive(Debug, Clone, Copy, QueryableByName)]
pub struct Drained {
    /// How many were done and forgotten.
    #[diesel(sql_type = BigInt)]
    pub forgotten: i64,
    /// The last of them that were taken, done or not. `None`: there was none.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub last_id: Option<i64>,
}

/// Touches the rows of a kind that entries ask for, and forgets these entries. One statement.
///
/// Takes at most `row_limit` entries after `after`, the oldest first. An entry whose row is locked by a
/// writer stays.
///
/// # Errors
///
/// Returns an error if the statement fails; nothing is touched or forgotten then.
pub fn drain_touches(
    conn: &mut Connection,
    epoch: i64,
    queue: Queue,
    kind: Kind,
    after: i64,
    row_limit: i32,
) -> Result<Drained, Error> {
    let sql = include_str!("queries/drain_touches.sql").replace("{table}", kind.table());
    statement(sql)
        .bind::<BigInt, _>(epoch)
        .bind::<Text, _>(queue.op())
        .bind::<Text, _>(kind.table())
        .bind::<BigInt, _>(after)
        .bind::<Integer, _>(row_limit)
        .get_result(conn)
        .map_err(Error::query("drain the touches of the outbox"))
}

/// Loads the oldest tombstones of a kind, at most `row_limit`.
///
/// # Errors
///
/// Returns an error if the statement fails.
pub fn load_tombstones(
    conn: &mut Connection,
    kind: Kind,
    row_limit: i32,
) -> Result<Vec<Tombstone>, Error> {
    let table = kind.table();
    statement(format!(
        "SELECT o.id AS entry_id, o.row_id, o.version,
            EXISTS (SELECT FROM content.{table} r WHERE r.id = o.row_id) AS is_back
         FROM etl.outbox o WHERE o.op = 'tombstone' AND o.kind = '{table}'
         ORDER BY o.id LIMIT $1"
    ))
    .bind::<Integer, _>(row_limit)
    .load(conn)
    .map_err(Error::query("load tombstones"))
}

/// Touches the rows that are back past their tombstones, and forgets these tombstones. One
/// statement. The entry of a row that a writer holds stays.
///
/// # Errors
///
/// Returns an error if the statement fails; nothing is touched or forgotten then.
pub fn revive(
    conn: &mut Connection,
    epoch: i64,
    kind: Kind,
    tombstones: &[&Tombstone],
) -> Result<u64, Error> {
    let entry_ids: Vec<i64> = tombstones.iter().map(|tombstone| tombstone.entry_id).collect();
    statement(include_str!("queries/revive.sql"))
        .bind::<BigInt, _>(epoch)
        .bind::<Text, _>(kind.table())
        .bind::<Array<BigInt>, _>(entry_ids)
        .get_result(conn)
        .map(|row: CountRow| row.entries.unsigned_abs())
        .map_err(Error::query("touch rows that are back"))
}

/// Forgets entries that are done. Returns how many; fewer if the epoch has moved. One statement.
///
/// # Errors
///
/// Returns an error if the statement fails; all or none are forgotten then.
pub fn forget(
    conn: &mut Connection,
    epoch: i64,
    op: &str,
    kind: Kind,
    entry_ids: &[i64],
) -> Result<usize, Error> {
    statement(
        "WITH fence AS MATERIALIZED (
            SELECT FROM etl.term WHERE epoch = $1 FOR SHARE
         )
         DELETE FROM etl.outbox o USING fence WHERE o.op = $2 AND o.kind = $3 AND o.id = ANY ($4)",
    )
    .bind::<BigInt, _>(epoch)
    .bind::<Text, _>(op)
    .bind::<Text, _>(kind.table())
    .bind::<Array<BigInt>, _>(entry_ids)
    .execute(conn)
    .map_err(Error::query("forget entries of the outbox"))
}

/// Raises the version of a tombstone past what the engine holds.
///
/// # Errors
///
/// Returns an error if the statement fails; the version is as it was then.
pub fn raise_tombstone(
    conn: &mut Connection,
    kind: Kind,
    entry_id: i64,
    past: Timestamp,
) -> Result<(), Error> {
    statement(
        "UPDATE etl.outbox SET version = greatest(version, $3 + interval '1 microsecond')
         WHERE op = 'tombstone' AND kind = $1 AND id = $2",
    )
    .bind::<Text, _>(kind.table())
    .bind::<BigInt, _>(entry_id)
    .bind::<Timestamptz, _>(past)
    .execute(conn)
    .map(drop)
    .map_err(Error::query("raise the version of a tombstone"))
}

/// Loads the purges of a kind, oldest first, at most 100.
///
/// # Errors
///
/// Returns an error if the statement fails.
pub fn load_purges(conn: &mut Connection, kind: Kind) -> Result<Vec<Purge>, Error> {
    statement(
        "SELECT id AS entry_id, version FROM etl.outbox
         WHERE op = 'purge' AND kind = $1 ORDER BY id LIMIT 100",
    )
    .bind::<Text, _>(kind.table())
    .load(conn)
    .map_err(Error::query("load purges"))
}

/// Notes some of what the truncation of tables asks for, and forgets markers that are done; 100 at most.
///
/// Returns how many rows were looked at, one at least for each marker that came further. One statement, and one for
/// each marker.
///
/// Takes about `row_limit` rows for each. Of a link table all rows are touched that may have been linked by it. Of a
/// table whose rows are documents, those without a row are deleted, and what has links that dangle now is touched.
///
/// # Errors
///
/// Returns an error if a statement fails; a marker has then come further, or is as it was.
pub fn expand_sweeps(conn: &mut Connection, epoch: i64, row_limit: i32) -> Result<u64, Error> {
    #[derive(QueryableByName)]
    struct Sweep {
        #[diesel(sql_type = BigInt)]
        entry_id: i64,
    }
    #[derive(QueryableByName)]
    struct Expanded {
        #[diesel(sql_type = BigInt)]
        rows: i64,
    }
    let sweeps: Vec<Sweep> =
        statement("SELECT id AS entry_id FROM etl.outbox WHERE op = 'sweep' ORDER BY id LIMIT 100")
            .load(conn)
            .map_err(Error::query("load sweep markers"))?;
    let mut rows = 0;
    for sweep in sweeps {
        let expanded: Expanded = statement("SELECT etl.expand_sweep($1, $2, $3) AS rows")
            .bind::<BigInt, _>(epoch)
            .bind::<BigInt, _>(sweep.entry_id)
            .bind::<Integer, _>(row_limit)
            .get_result(conn)
            .map_err(Error::query("note what a truncated table asks for"))?;
        rows += expanded.rows.unsigned_abs();
    }
    Ok(rows)
}

/// Forgets the entries that only concern documents of a kind of which there is no index. Returns how many;
/// at most `row_limit`. One statement.
///
/// There are few: of writers whose transactions see what was there at their beginning, and of those who have
/// changed an id. Nothing is missed: before such an index is filled, all rows of the kind are made pending.
///
/// # Errors
///
/// Returns an error if the statement fails; all or none are forgotten then.
pub fn discard(conn: &mut Connection, kind: Kind, row_limit: i32) -> Result<u64, Error> {
    statement(
        "WITH unbound AS MATERIALIZED (
            SELECT FROM etl.state WHERE kind = $1 AND index_name IS NULL FOR SHARE
         )
         DELETE FROM etl.outbox o WHERE o.ctid = ANY (ARRAY(
            SELECT e.ctid FROM unbound, etl.outbox e
            WHERE e.op IN ('touch', 'touch_later', 'tombstone', 'purge') AND e.kind = $1
            LIMIT $2))",
    )
    .bind::<Text, _>(kind.table())
    .bind::<Integer, _>(row_limit)
    .execute(conn)
    .map(|entries| entries as u64)
    .map_err(Error::query("forget what no index asks for"))
}

/// Returns which of the given rows are not in the catalogue.
///
/// # Errors
///
/// Returns an error if the statement fails.
pub fn find_absent(conn: &mut Connection, kind: Kind, ids: &[Uuid]) -> Result<Vec<Uuid>, Error> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Nullable<SqlUuid>)]
        id: Option<Uuid>,
    }
    let table = kind.table();
    statement(format!(
        "SELECT i.id FROM unnest($1) AS i (id)
         WHERE NOT EXISTS (SELECT FROM content.{table} r WHERE r.id = i.id)"
    ))
    .bind::<Array<SqlUuid>, _>(ids)
    .load(conn)
    .map(|rows: Vec<Row>| rows.into_iter().filter_map(|row| row.id).collect())
    .map_err(Error::query("compare the index with the catalogue"))
}
