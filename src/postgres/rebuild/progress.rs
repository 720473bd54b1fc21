//! A new index is made and filled, or given up.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Text, Uuid as SqlUuid};
use uuid::Uuid;

use crate::kind::Kind;
use crate::postgres::statement::statement;
use crate::postgres::{Connection, Error};

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
         WHERE kind = $1 AND phase = 'filling'
         RETURNING troubled_since < clock_timestamp() - interval '5 minutes' AS is_long",
    )
    .bind::<Text, _>(kind.table())
    .get_result(conn)
    .optional()
    .map(|row: Option<Trouble>| row.is_some_and(|row| row.is_long))
    .map_err(Error::query("note that a new index takes nothing"))
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
