//! Rows that other documents show: what changed in them reaches those by way of the outbox.
//!
//! A changed person or genre concerns its films, a film that comes or goes its persons. Two steps, so that the row of a genre with a million films is locked no longer than any other:
//! the changed row is noted, and its entry is replaced by its films afterwards.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Integer, Text};

use super::statement::statement;
use super::{Connection, Error};

#[derive(QueryableByName)]
struct CountRow {
    #[diesel(sql_type = BigInt)]
    rows: i64,
}

/// The tables whose rows note themselves that they have changed.
pub(super) const NOTED: [&str; 2] = ["person", "genre"];

/// A table whose rows others are linked to, and how many entries of it are replaced at a time.
///
/// A genre may have a tenth of all films (half a second at a million of them), a person or film has few.
const EXPANDED: [(&str, i32); 3] = [("person", 200), ("genre", 1), ("film_work", 200)];

/// Notes changed persons and genres in the outbox, and stamps these rows in the same statement. Two
/// statements.
///
/// Takes at most `row_limit` rows of each table, and returns how many it took.
///
/// # Errors
///
/// Returns an error if a statement fails; a row is then either noted and stamped, or neither.
pub fn note_fan_outs(conn: &mut Connection, row_limit: i32) -> Result<u64, Error> {
    let mut noted = 0;
    for table in NOTED {
        let row: CountRow = statement("SELECT etl.note_fan_outs($1, $2) AS rows")
            .bind::<Text, _>(table)
            .bind::<Integer, _>(row_limit)
            .get_result(conn)
            .map_err(Error::query("note changed persons and genres"))?;
        noted += row.rows.unsigned_abs();
    }
    Ok(noted)
}

/// Replaces rows in the outbox by touches of the rows that are linked to them. Three statements.
///
/// Where there are more than `urgent_rows` of them, they are to be touched later than others. Returns how many entries were replaced.
///
/// # Errors
///
/// Returns an error if a statement fails; an entry is then either replaced or still there.
pub fn expand_fan_outs(conn: &mut Connection, epoch: i64, urgent_rows: i32) -> Result<u64, Error> {
    let mut replaced = 0;
    for (table, row_limit) in EXPANDED {
        let row: CountRow = statement("SELECT etl.expand_fan_outs($1, $2, $3, $4) AS rows")
            .bind::<BigInt, _>(epoch)
            .bind::<Text, _>(table)
            .bind::<Integer, _>(row_limit)
            .bind::<Integer, _>(urgent_rows)
            .get_result(conn)
            .map_err(Error::query("look up what is linked to changed rows"))?;
        replaced += row.rows.unsigned_abs();
    }
    Ok(replaced)
}
