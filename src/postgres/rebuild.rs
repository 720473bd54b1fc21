//! Indices that are made anew beside the live ones: what was asked for, and how far each has come.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Nullable, Text, Uuid as SqlUuid};
use uuid::Uuid;

use super::statement::statement;
use super::{Connection, Error};
use crate::kind::Kind;

/// How far a new index has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It is to be made.
    Requested,
    /// Whatever is sent goes to both indices, and the rows that are not pending to the new one.
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
                filled_to = NULL, documents = 0, failure = NULL, requested_at = clock_timestamp()
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

/// Gives the new index another name, if it is still to be made, and if the epoch is still the one of this term.
/// Returns false if not. One statement.
///
/// # Errors
///
/// Returns an error if the statement fails; it has the former name then, or the new one.
pub fn rename(
    conn: &mut Connection,
    kind: Kind,
    epoch: i64,
    index_name: &str,
) -> Result<bool, Error> {
    statement(
        "WITH fence AS MATERIALIZED (SELECT FROM etl.term WHERE epoch = $2 FOR SHARE)
         UPDATE etl.rebuild SET index_name = $3 FROM fence WHERE kind = $1 AND phase = 'requested'",
    )
    .bind::<Text, _>(kind.table())
    .bind::<BigInt, _>(epoch)
    .bind::<Text, _>(index_name)
    .execute(conn)
    .map(|rows| rows > 0)
    .map_err(Error::query("name a new index"))
}

/// Notes that the new index was made, and that it is filled from now on, if the epoch is still the one of this
/// term. Returns false if not. One statement.
///
/// # Errors
///
/// Returns an error if the statement fails; it counts as not made then.
pub fn begin_filling(
    conn: &mut Connection,
    kind: Kind,
    epoch: i64,
    index_uuid: &str,
    settings: &str,
) -> Result<bool, Error> {
    let table = kind.table();
    // What statistics say is enough to tell people how far it is.
    statement(format!(
        "WITH fence AS MATERIALIZED (SELECT FROM etl.term WHERE epoch = $2 FOR SHARE)
         UPDATE etl.rebuild SET phase = 'filling', index_uuid = $3, settings = $4, expected = greatest(0, (
            SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass('content.{table}')))
         FROM fence WHERE kind = $1 AND phase = 'requested'"
    ))
    .bind::<Text, _>(table)
    .bind::<BigInt, _>(epoch)
    .bind::<Text, _>(index_uuid)
    .bind::<Text, _>(settings)
    .execute(conn)
    .map(|rows| rows > 0)
    .map_err(Error::query("note a new index"))
}

/// Notes how far the new index is filled, if the epoch is still the one of the reading. Returns false if not.
/// One statement.
///
/// # Errors
///
/// Returns an error if the statement fails; then the same rows are sent once more, which does no harm.
pub fn save_filled(
    conn: &mut Connection,
    kind: Kind,
    epoch: i64,
    filled_to: Uuid,
    documents: usize,
) -> Result<bool, Error> {
    statement(
        "WITH fence AS MATERIALIZED (SELECT FROM etl.term WHERE epoch = $2 FOR SHARE)
         UPDATE etl.rebuild SET filled_to = $3, documents = documents + $4, troubled_since = NULL
         FROM fence WHERE kind = $1 AND phase = 'filling'",
    )
    .bind::<Text, _>(kind.table())
    .bind::<BigInt, _>(epoch)
    .bind::<SqlUuid, _>(filled_to)
    .bind::<BigInt, _>(i64::try_from(documents).unwrap_or(i64::MAX))
    .execute(conn)
    .map(|rows| rows > 0)
    .map_err(Error::query("note how far a new index is filled"))
}

/// Notes that the new index has everything and is about to take the place of the live one, if the epoch is
/// still the one under which that was found. Returns false if not. One statement.
///
/// # Errors
///
/// Returns an error if the statement fails; the live index is still the one that counts then.
pub fn begin_switching(
    conn: &mut Connection,
    kind: Kind,
    epoch: i64,
    settings: &str,
) -> Result<bool, Error> {
    statement(
        "WITH fence AS MATERIALIZED (SELECT FROM etl.term WHERE epoch = $2 FOR SHARE)
         UPDATE etl.rebuild SET phase = 'switching', settings = $3
         FROM fence WHERE kind = $1 AND phase = 'filling'",
    )
    .bind::<Text, _>(kind.table())
    .bind::<BigInt, _>(epoch)
    .bind::<Text, _>(settings)
    .execute(conn)
    .map(|rows| rows > 0)
    .map_err(Error::query("note that a new index has everything"))
}

/// Goes back to filling: the engine does not let the new index take the place of the live one for now. One
/// statement.
///
/// # Errors
///
/// Returns an error if the statement fails; the switch is tried again then.
pub fn put_off_switching(conn: &mut Connection, kind: Kind, index_name: &str) -> Result<(), Error> {
    statement(
        "UPDATE etl.rebuild SET phase = 'filling'
         WHERE kind = $1 AND index_name = $2 AND phase = 'switching'",
    )
    .bind::<Text, _>(kind.table())
    .bind::<Text, _>(index_name)
    .execute(conn)
    .map(drop)
    .map_err(Error::query("put a switch off"))
}

/// Binds the state to the new index, which has taken the place of the live one, and moves the epoch. What
/// the former one refused is tried again. One statement.
///
/// # Errors
///
/// Returns an error if the statement fails; the state is bound to the former index then.
pub fn finish_switching(conn: &mut Connection, kind: Kind, index_name: &str) -> Result<(), Error> {
    statement(
        "WITH done AS (
            DELETE FROM etl.rebuild WHERE kind = $1 AND index_name = $2 AND phase = 'switching' RETURNING *
         ), moved AS (
            UPDATE etl.term SET epoch = epoch + 1 WHERE EXISTS (SELECT FROM done)
         ), due AS (
            UPDATE etl.rejected SET retry_at = clock_timestamp()
            WHERE kind = $1 AND EXISTS (SELECT FROM done)
         )
         UPDATE etl.state s SET index_name = done.index_name, index_uuid = done.index_uuid,
            mapping = done.mapping, settings = done.settings, is_loading = false,
            former_index = CASE WHEN done.keep_old THEN NULL ELSE s.index_name END,
            retired_at = clock_timestamp()
         FROM done WHERE s.kind = $1",
    )
    .bind::<Text, _>(kind.table())
    .bind::<Text, _>(index_name)
    .execute(conn)
    .map(drop)
    .map_err(Error::query("bind the state to a new index"))
}

/// Finds an index that was live before a rebuild and in which no search can be at work any more.
///
/// For that it has been without its alias for three seconds at least, or for any time (`at_once`). One
/// statement.
///
/// # Errors
///
/// Returns an error if the statement fails.
pub fn find_retired(
    conn: &mut Connection,
    kind: Kind,
    at_once: bool,
) -> Result<Option<String>, Error> {
    #[derive(QueryableByName)]
    struct Retired {
        #[diesel(sql_type = Text)]
        former_index: String,
    }
    statement(
        "SELECT former_index FROM etl.state
         WHERE kind = $1 AND former_index IS NOT NULL
            AND ($2 OR retired_at < clock_timestamp() - interval '3 seconds')",
    )
    .bind::<Text, _>(kind.table())
    .bind::<Bool, _>(at_once)
    .get_result(conn)
    .optional()
    .map(|row: Option<Retired>| row.map(|row| row.former_index))
    .map_err(Error::query("look for an index that is not needed any more"))
}

/// Forgets an index that was live before a rebuild and has been deleted. One statement.
///
/// # Errors
///
/// Returns an error if the statement fails; it is deleted once more then.
pub fn forget_retired(conn: &mut Connection, kind: Kind, index_name: &str) -> Result<(), Error> {
    statement("UPDATE etl.state SET former_index = NULL WHERE kind = $1 AND former_index = $2")
        .bind::<Text, _>(kind.table())
        .bind::<Text, _>(index_name)
        .execute(conn)
        .map(drop)
        .map_err(Error::query("forget an index that is not needed any more"))
}

/// Gives the new index up, and moves the epoch: from now on the live index alone counts. Returns false if the
/// epoch is no longer the one of this term, or if the new index may be live. One statement.
///
/// # Errors
///
/// Returns an error if the statement fails; the new index is still needed then.
pub fn fail(
    conn: &mut Connection,
    kind: Kind,
    epoch: i64,
    index_name: &str,
    failure: &str,
) -> Result<bool, Error> {
    statement(
        "WITH failed AS (
            UPDATE etl.rebuild SET phase = 'failed', failure = $4
            WHERE kind = $1 AND index_name = $3 AND phase IN ('requested', 'filling')
                AND EXISTS (SELECT FROM etl.term WHERE epoch = $2)
            RETURNING 1
         )
         UPDATE etl.term SET epoch = epoch + 1 WHERE epoch = $2 AND EXISTS (SELECT FROM failed)",
    )
    .bind::<Text, _>(kind.table())
    .bind::<BigInt, _>(epoch)
    .bind::<Text, _>(index_name)
    .bind::<Text, _>(failure)
    .execute(conn)
    .map(|moved| moved > 0)
    .map_err(Error::query("give a new index up"))
}

/// Notes that the new index takes nothing although the live one does. Returns true if that has been so for more
/// than five minutes. One statement.
///
/// # Errors
///
/// Returns an error if the statement fails; nothing is noted then.
pub fn note_trouble(conn: &mut Connection, kind: Kind) -> Result<bool, Error> {
    #[derive(QueryableByName)]
    struct Trouble {
        #[diesel(sql_type = Bool)]
        is_long: bool,
    }
    statement(
        "UPDATE etl.rebuild SET troubled_since = coalesce(troubled_since, clock_timestamp())
         WHERE kind = $1 RETURNING troubled_since < clock_timestamp() - interval '5 minutes' AS is_long",
    )
    .bind::<Text, _>(kind.table())
    .get_result(conn)
    .optional()
    .map(|row: Option<Trouble>| row.is_some_and(|row| row.is_long))
    .map_err(Error::query("note that a new index takes nothing"))
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

/// How many rows there are, and for how many of them the index may not be right yet.
#[derive(Debug, Clone, Copy, QueryableByName)]
pub struct RowCount {
    /// Rows of the table.
    #[diesel(sql_type = BigInt)]
    pub rows: i64,
    /// Of these, those that are pending or rejected; and the tombstones.
    #[diesel(sql_type = BigInt)]
    pub unsettled: i64,
}

/// Counts the rows of a kind. Reads the whole table. One statement.
///
/// # Errors
///
/// Returns an error if the statement fails.
pub fn count_rows(conn: &mut Connection, kind: Kind) -> Result<RowCount, Error> {
    let (table, pending) = (kind.table(), super::pending::PENDING);
    statement(format!(
        "SELECT count(*) AS rows,
            count(*) FILTER (WHERE ({pending}) OR rejected_at IS NOT NULL)
                + (SELECT count(*) FROM etl.outbox WHERE op IN ('tombstone', 'purge') AND kind = '{table}')
                AS unsettled
         FROM content.{table}"
    ))
    .get_result(conn)
    .map_err(Error::query("count the rows"))
}
