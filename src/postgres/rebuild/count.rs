//! How many documents an index is to have.

use diesel::prelude::*;
use diesel::sql_types::BigInt;

use crate::kind::Kind;
use crate::postgres::pending::PENDING;
use crate::postgres::statement::statement;
use crate::postgres::{Connection, Error};

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

/// Counts the rows of a kind. Reads the whole table, and may take half an hour for it. Two statements.
///
/// # Errors
///
/// Returns an error if the statement fails.
pub fn count_rows(conn: &mut Connection, kind: Kind) -> Result<RowCount, Error> {
    statement("SELECT set_config('statement_timeout', '30min', false)")
        .execute(conn)
        .map_err(Error::query("allow a statement to take long"))?;
    let (table, pending) = (kind.table(), PENDING);
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
