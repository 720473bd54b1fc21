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

/// The entries of one kind of urgency that ask for films to be touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    /// Changed links, and persons and genres with few films.
    Urgent,
    /// The films of one that has very many.
    Later,
}

impl Queue {
    fn op(self) -> &'static str {
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
    /// The film.
    #[diesel(sql_type = SqlUuid)]
    pub film_work_id: Uuid,
    /// Taken at the deletion, past all that the row ever had.
    #[diesel(sql_type = Timestamptz)]
    pub version: Timestamp,
    /// There is a film of this id now.
    #[diesel(sql_type = Bool)]
    pub is_back: bool,
}

/// A table that was truncated.
#[derive(Debug, Clone, QueryableByName)]
pub struct Sweep {
    /// The key of the outbox entry.
    #[diesel(sql_type = BigInt)]
    pub entry_id: i64,
    /// The name of the table.
    #[diesel(sql_type = Text)]
    pub kind: String,
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

/// Touches the films that entries ask for, and forgets these entries. One statement.
///
/// Takes at most `row_limit` entries after `after`, the oldest first. An entry whose film is locked by a
/// writer stays.
///
/// # Errors
///
/// Returns an error if the statement fails; nothing is touched or forgotten then.
pub fn drain_touches(
    conn: &mut Connection,
    epoch: i64,
    queue: Queue,
    after: i64,
    row_limit: i32,
) -> Result<Drained, Error> {
    statement(include_str!("queries/drain_touches.sql"))
        .bind::<BigInt, _>(epoch)
        .bind::<Text, _>(queue.op())
        .bind::<BigInt, _>(after)
        .bind::<Integer, _>(row_limit)
        .get_result(conn)
        .map_err(Error::query("drain the touches of the outbox"))
}

/// Loads the oldest tombstones of films, at most `row_limit`.
///
/// # Errors
///
/// Returns an error if the statement fails.
pub fn load_tombstones(conn: &mut Connection, row_limit: i32) -> Result<Vec<Tombstone>, Error> {
    statement(
        "SELECT o.id AS entry_id, o.row_id AS film_work_id, o.version,
            EXISTS (SELECT FROM content.film_work f WHERE f.id = o.row_id) AS is_back
         FROM etl.outbox o WHERE o.op = 'tombstone'
         ORDER BY o.id LIMIT $1",
    )
    .bind::<Integer, _>(row_limit)
    .load(conn)
    .map_err(Error::query("load tombstones"))
}

/// Touches the films that are back past their tombstones, and forgets these tombstones. One
/// statement. The entry of a film that a writer holds stays.
///
/// # Errors
///
/// Returns an error if the statement fails; nothing is touched or forgotten then.
pub fn revive(conn: &mut Connection, epoch: i64, tombstones: &[&Tombstone]) -> Result<u64, Error> {
    let entry_ids: Vec<i64> = tombstones.iter().map(|tombstone| tombstone.entry_id).collect();
    statement(include_str!("queries/revive.sql"))
        .bind::<BigInt, _>(epoch)
        .bind::<Array<BigInt>, _>(entry_ids)
        .get_result(conn)
        .map(|row: CountRow| row.entries.unsigned_abs())
        .map_err(Error::query("touch films that are back"))
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
    entry_ids: &[i64],
) -> Result<usize, Error> {
    statement(
        "WITH fence AS MATERIALIZED (
            SELECT FROM etl.state WHERE kind = 'movies' AND epoch = $1 FOR SHARE
         )
         DELETE FROM etl.outbox o USING fence WHERE o.op = $2 AND o.id = ANY ($3)",
    )
    .bind::<BigInt, _>(epoch)
    .bind::<Text, _>(op)
    .bind::<Array<BigInt>, _>(entry_ids)
    .execute(conn)
    .map_err(Error::query("forget entries of the outbox"))
}

/// Raises the version of a tombstone past what the engine holds.
///
/// # Errors
///
/// Returns an error if the statement fails; the version is as it was then.
pub fn raise_tombstone(conn: &mut Connection, entry_id: i64, past: Timestamp) -> Result<(), Error> {
    statement(
        "UPDATE etl.outbox SET version = greatest(version, $2 + interval '1 microsecond')
         WHERE op = 'tombstone' AND id = $1",
    )
    .bind::<BigInt, _>(entry_id)
    .bind::<Timestamptz, _>(past)
    .execute(conn)
    .map(drop)
    .map_err(Error::query("raise the version of a tombstone"))
}

/// Loads the sweep markers, oldest first, at most 100.
///
/// # Errors
///
/// Returns an error if the statement fails.
pub fn load_sweeps(conn: &mut Connection) -> Result<Vec<Sweep>, Error> {
    statement(
        "SELECT id AS entry_id, kind, version FROM etl.outbox WHERE op = 'sweep' ORDER BY id LIMIT 100",
    )
    .load(conn)
    .map_err(Error::query("load sweep markers"))
}

/// Notes touches of the films that a truncated table concerns, and forgets its marker. One
/// statement.
///
/// Of a link table that is every film, for nothing says any more which were linked. Of `person` and
/// `genre` those whose links dangle now; links that went with them have a marker of their own.
///
/// # Errors
///
/// Returns an error if the statement fails; nothing is noted or forgotten then.
pub fn expand_sweep(conn: &mut Connection, epoch: i64, sweep: &Sweep) -> Result<(), Error> {
    let sql = match &*sweep.kind {
        "person" | "genre" => include_str!("queries/sweep_related.sql"),
        _ => include_str!("queries/sweep_links.sql"),
    };
    statement(sql)
        .bind::<BigInt, _>(epoch)
        .bind::<BigInt, _>(sweep.entry_id)
        .execute(conn)
        .map(drop)
        .map_err(Error::query("note the films of a truncated table"))
}

/// Returns which of the given films are not in the catalogue.
///
/// # Errors
///
/// Returns an error if the statement fails.
pub fn find_absent(conn: &mut Connection, ids: &[Uuid]) -> Result<Vec<Uuid>, Error> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Nullable<SqlUuid>)]
        id: Option<Uuid>,
    }
    statement(
        "SELECT i.id FROM unnest($1) AS i (id)
         WHERE NOT EXISTS (SELECT FROM content.film_work f WHERE f.id = i.id)",
    )
    .bind::<Array<SqlUuid>, _>(ids)
    .load(conn)
    .map(|rows: Vec<Row>| rows.into_iter().filter_map(|row| row.id).collect())
    .map_err(Error::query("compare the index with the catalogue"))
}
