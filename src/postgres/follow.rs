//! A kind whose documents were not kept: from when on writers note what concerns them.

use diesel::prelude::*;
use diesel::sql_types::{Array, Integer, Nullable, Text};

use super::statement::statement;
use super::{Connection, Error};
use crate::kind::Kind;

/// The transactions of a moment.
#[derive(Debug, QueryableByName)]
pub struct Snapshot {
    #[diesel(sql_type = Text)]
    snapshot: String,
}

/// A transaction that has written something and is not over.
#[derive(Debug, QueryableByName)]
pub struct OpenTransaction {
    /// The server's process that has it.
    #[diesel(sql_type = Nullable<Integer>)]
    pub pid: Option<i32>,
    /// Its name, if it was prepared and belongs to no process.
    #[diesel(sql_type = Nullable<Text>)]
    pub prepared: Option<String>,
}

/// Has writers note what concerns documents of these kinds. Returns the transactions that may not have seen it.
/// Two statements.
///
/// # Errors
///
/// Returns an error if a statement fails; it may have been noted then, which does no harm.
pub fn begin_following(conn: &mut Connection, kinds: &[Kind]) -> Result<Snapshot, Error> {
    let tables: Vec<&str> = kinds.iter().map(|kind| kind.table()).collect();
    statement("INSERT INTO etl.followed (kind) SELECT unnest($1) ON CONFLICT DO NOTHING")
        .bind::<Array<Text>, _>(tables)
        .execute(conn)
        .map_err(Error::query("have a kind followed"))?;
    // Not in the same statement: whoever begins before the commit still sees what was there before.
    statement("SELECT pg_current_snapshot()::text AS snapshot")
        .get_result(conn)
        .map_err(Error::query("look which transactions are open"))
}

/// Finds a transaction of this database that was open at that moment and still is. One statement.
///
/// # Errors
///
/// Returns an error if the statement fails.
pub fn find_open(
    conn: &mut Connection,
    since: &Snapshot,
) -> Result<Option<OpenTransaction>, Error> {
    statement(
        "SELECT a.pid, p.gid AS prepared
         FROM pg_snapshot_xip($1::pg_snapshot) AS t (number)
         LEFT JOIN pg_stat_activity a ON a.backend_xid = t.number::xid
         LEFT JOIN pg_prepared_xacts p ON p.transaction = t.number::xid
         WHERE NOT pg_visible_in_snapshot(t.number, pg_current_snapshot())
            AND coalesce(a.datname, p.database, current_database()) = current_database()
         ORDER BY t.number
         LIMIT 1",
    )
    .bind::<Text, _>(&since.snapshot)
    .get_result(conn)
    .optional()
    .map_err(Error::query("look which transactions are still open"))
}
