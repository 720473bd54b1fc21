//! Persons and genres: what changed in them reaches the films by way of the outbox.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Integer, Text};

use super::statement::statement;
use super::{Connection, Error};

/// Notes the films of changed persons and genres in the outbox, and stamps these rows in the same
/// statement. Two statements.
///
/// Takes at most `row_limit` rows of each kind, and returns how many it took. Films of a row that
/// has more than `urgent_films` of them are noted as less urgent than others.
///
/// # Errors
///
/// Returns an error if a statement fails; a row is then either noted and stamped, or neither.
pub fn fan_out(conn: &mut Connection, row_limit: i32, urgent_films: i32) -> Result<u64, Error> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = BigInt)]
        stamped: i64,
    }
    let mut stamped = 0;
    for kind in ["person", "genre"] {
        let row: Row = statement("SELECT etl.fan_out($1, $2, $3) AS stamped")
            .bind::<Text, _>(kind)
            .bind::<Integer, _>(row_limit)
            .bind::<Integer, _>(urgent_films)
            .get_result(conn)
            .map_err(Error::query("fan out persons and genres"))?;
        stamped += row.stamped.unsigned_abs();
    }
    Ok(stamped)
}
