//! A new index takes the place of the live one, and the former one is deleted.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Text};

use crate::kind::Kind;
use crate::postgres::statement::statement;
use crate::postgres::{Connection, Error};

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
