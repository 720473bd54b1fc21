//! The documents that the engine refuses as they are: recorded, listed, and tried again.

use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use uuid::Uuid;

use super::stamp::{AsRead, Columns, into_ids};
use super::statement::statement;
use super::{Connection, Error};
use crate::kind::Kind;

/// Why the engine refuses a document as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The row, as it was when its document was built.
    pub row: AsRead,
    /// The engine's word for the kind of error.
    pub error_type: String,
    /// The engine's explanation. It may hold data of the document.
    pub reason: String,
}

/// Records the rows whose documents were refused, if they are still as they were read. They are
/// not pending until they change, or until a growing pause is over. One statement.
///
/// Returns the ids of those that it recorded; the others have changed, or a writer holds them.
///
/// # Errors
///
/// Returns an error if the statement fails; all or none are recorded then.
pub fn reject(
    conn: &mut Connection,
    kind: Kind,
    epoch: i64,
    rejections: &[Rejection],
) -> Result<Vec<Uuid>, Error> {
    let columns = Columns::of(rejections.iter().map(|rejection| &rejection.row));
    let versions: Vec<i64> = rejections.iter().map(|r| r.row.version()).collect();
    let error_types: Vec<&str> = rejections.iter().map(|r| &*r.error_type).collect();
    let reasons: Vec<&str> = rejections.iter().map(|r| &*r.reason).collect();
    statement("SELECT * FROM etl.reject_rows($1, $2, $3, $4, $5, $6, $7, $8) AS r (id)")
        .bind::<Text, _>(kind.table())
        .bind::<BigInt, _>(epoch)
        .bind::<Array<SqlUuid>, _>(columns.ids)
        .bind::<Array<Timestamptz>, _>(columns.touched_ats)
        .bind::<Array<Nullable<Timestamptz>>, _>(columns.modifieds)
        .bind::<Array<BigInt>, _>(versions)
        .bind::<Array<Text>, _>(error_types)
        .bind::<Array<Text>, _>(reasons)
        .load(conn)
        .map(into_ids)
        .map_err(Error::query("record rejected documents"))
}

/// Makes the rejected rows of a kind pending again whose pause is over. Returns how many were due. One
/// statement.
///
/// # Errors
///
/// Returns an error if the statement fails; none is pending again then.
pub fn retry_rejected(conn: &mut Connection, kind: Kind, row_limit: i32) -> Result<u64, Error> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = BigInt)]
        due: i64,
    }
    statement("SELECT etl.retry_rejected($1, $2) AS due")
        .bind::<Text, _>(kind.table())
        .bind::<Integer, _>(row_limit)
        .get_result(conn)
        .map(|row: Row| row.due.unsigned_abs())
        .map_err(Error::query("try rejected documents again"))
}

/// A rejected document, as a person wants to see it.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct RejectedDocument {
    /// The table of the row that it was made of.
    #[diesel(sql_type = Text)]
    pub kind: String,
    /// The key of that row, and the `_id` of the document.
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    /// What people call it.
    #[diesel(sql_type = Nullable<Text>)]
    pub title: Option<String>,
    /// The version that was refused, microseconds since 1970.
    #[diesel(sql_type = BigInt)]
    pub version: i64,
    /// The engine's word for the kind of error.
    #[diesel(sql_type = Text)]
    pub error_type: String,
    /// Its explanation.
    #[diesel(sql_type = Text)]
    pub reason: String,
    /// How often it was refused.
    #[diesel(sql_type = Integer)]
    pub attempts: i32,
    /// When for the first time, in UTC.
    #[diesel(sql_type = Text)]
    pub first_at: String,
    /// When for the last time, in UTC.
    #[diesel(sql_type = Text)]
    pub last_at: String,
    /// When it is tried again, in UTC.
    #[diesel(sql_type = Text)]
    pub retry_at: String,
}

/// Loads the rejected documents, the latest first, at most `row_limit`.
///
/// # Errors
///
/// Returns an error if the statement fails.
pub fn load_rejected(
    conn: &mut Connection,
    row_limit: i64,
) -> Result<Vec<RejectedDocument>, Error> {
    // Without a time zone they are written as they are, in the one of the session, which is UTC.
    statement(
        "SELECT kind, id, title, version, error_type, reason, attempts,
            date_trunc('second', first_at)::timestamp::text AS first_at,
            date_trunc('second', last_at)::timestamp::text AS last_at,
            date_trunc('second', retry_at)::timestamp::text AS retry_at
         FROM etl.rejected_documents AS d ORDER BY d.last_at DESC, id LIMIT $1",
    )
    .bind::<BigInt, _>(row_limit)
    .load(conn)
    .map_err(Error::query("load the rejected documents"))
}

/// Counts the rejected documents.
///
/// # Errors
///
/// Returns an error if the statement fails.
pub fn count_rejected(conn: &mut Connection) -> Result<u64, Error> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = BigInt)]
        documents: i64,
    }
    statement("SELECT count(*) AS documents FROM etl.rejected_documents")
        .get_result(conn)
        .map(|row: Row| row.documents.unsigned_abs())
        .map_err(Error::query("count the rejected documents"))
}

/// Ends the pauses of all rejected documents, so that the next step tries them again. Returns how many.
///
/// # Errors
///
/// Returns an error if the statement fails; all pauses are as they were then.
pub fn end_pauses(conn: &mut Connection) -> Result<usize, Error> {
    statement("UPDATE etl.rejected SET retry_at = clock_timestamp()")
        .execute(conn)
        .map_err(Error::query("end the pauses of rejected documents"))
}
