//! The rows that documents are made of: which are pending, and pages of them.

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Timestamptz, Uuid as SqlUuid};
use uuid::Uuid;

use super::stamp::{AsRead, Columns};
use super::statement::{Statement, statement};
use super::{Connection, Error, Timestamp};
use crate::kind::Kind;

/// What makes a row pending. The one place of this condition in the program; the database indexes
/// `…_etl_pending` are made of the same words.
///
/// The second half is a safety net for triggers that were disabled: with them, every change leaves
/// a NULL.
pub(super) const PENDING: &str =
    "(indexed_at IS NULL OR modified > indexed_at) AND rejected_at IS NULL";

/// A place in the order in which pending rows are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, QueryableByName)]
pub struct Position {
    /// When the row was last touched.
    #[diesel(sql_type = Timestamptz)]
    pub touched_at: Timestamp,
    /// Tells those apart that were touched in the same microsecond.
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
}

impl Position {
    /// Before all rows.
    pub const START: Self =
        Self { touched_at: diesel::data_types::PgTimestamp(i64::MIN), id: Uuid::nil() };
}

/// What a page is read from.
///
/// The row with its version is read first, and what belongs to it after that: whatever changes in between
/// touches the row after it can be seen.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    /// The kind of documents, whose table it is.
    pub kind: Kind,
    /// Those of its columns that may be long.
    pub texts: &'static [&'static str],
    /// What is selected beside what a stamp needs. The users' columns are cast, so that an ALTER TYPE of
    /// theirs does not change what a statement returns.
    pub columns: &'static str,
}

/// Which rows make a page. They come in this order.
#[derive(Debug, Clone)]
pub enum Selection {
    /// Pending rows after a place, in the order of reading.
    Pending {
        /// The place.
        after: Position,
        /// Not these, as they are.
        except: Vec<AsRead>,
    },
    /// All rows after an id, or from the first one on, in the order of their ids.
    All(Option<Uuid>),
    /// Rows with these ids, in the order of their ids.
    Ids(Vec<Uuid>),
}

/// How much a page holds.
#[derive(Debug, Clone, Copy)]
pub struct PageLimits {
    /// Rows, at most.
    pub rows: usize,
    /// No more rows once their texts have come to so many bytes; one at least, if there is one.
    pub bytes: usize,
}

/// Loads a page of rows. One statement.
///
/// # Errors
///
/// Returns an error if the statement fails.
pub(super) fn load_page<Row: QueryableByName<Pg> + 'static>(
    conn: &mut Connection,
    source: Source,
    selection: &Selection,
    limits: PageLimits,
) -> Result<Vec<Row>, Error> {
    let query = match selection {
        // A row comparison: spelt with AND and OR it reads every row of a tie.
        Selection::Pending { after, except } => {
            let except = Columns::of(except.iter());
            page_of(
                source,
                &format!(
                    "{PENDING} AND (touched_at, id) > ($2, $3)
                     AND (id, touched_at) NOT IN (SELECT * FROM unnest($4, $5))"
                ),
                "touched_at, id",
                limits,
            )
            .bind::<Timestamptz, _>(after.touched_at)
            .bind::<SqlUuid, _>(after.id)
            .bind::<Array<SqlUuid>, _>(except.ids)
            .bind::<Array<Timestamptz>, _>(except.touched_ats)
        }
        Selection::All(None) => page_of(source, "true", "id", limits),
        Selection::All(Some(after)) => {
            page_of(source, "id > $2", "id", limits).bind::<SqlUuid, _>(after)
        }
        Selection::Ids(ids) => {
            page_of(source, "id = ANY ($2)", "id", limits).bind::<Array<SqlUuid>, _>(ids)
        }
    };
    query.load(conn).map_err(Error::query("load a page of rows"))
}

/// The statement for a page, of which the parameters from `$2` on are left to be bound.
///
/// The number of rows is part of its text, so that the plan is made for a page and not for the table.
fn page_of<'a>(source: Source, condition: &str, order: &str, limits: PageLimits) -> Statement<'a> {
    let Source { kind, texts, columns } = source;
    let table = kind.table();
    let bytes = texts.iter().map(|column| format!("coalesce(octet_length({column}::text), 0)"));
    let bytes = bytes.collect::<Vec<_>>().join(" + ");
    let PageLimits { rows, bytes: byte_limit } = limits;
    statement(format!(
        "SELECT id, touched_at, modified, {columns}
         FROM (
            SELECT *, sum({bytes})
                OVER (ORDER BY {order} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
                AS etl_bytes_before
            FROM (
                SELECT * FROM content.{table} WHERE {condition} ORDER BY {order} LIMIT {rows}
            ) AS page
         ) AS measured
         WHERE etl_bytes_before IS NULL OR etl_bytes_before < $1
         ORDER BY {order}"
    ))
    .bind::<BigInt, _>(i64::try_from(byte_limit).unwrap_or(i64::MAX))
}

/// Loads the ids of some pending rows: half of them the last ones, and half of them from anywhere. At
/// most `row_limit`, none twice. One statement.
///
/// # Errors
///
/// Returns an error if the statement fails.
pub fn load_sample(conn: &mut Connection, kind: Kind, row_limit: i64) -> Result<Vec<Uuid>, Error> {
    let table = kind.table();
    // A random moment between the first and the last, as the database index has them in that order.
    statement(format!(
        "WITH ends AS (
            SELECT min(touched_at) AS first, max(touched_at) AS last
            FROM content.{table} WHERE {PENDING}
         ), last AS (
            SELECT id FROM content.{table} WHERE {PENDING}
            ORDER BY touched_at DESC, id DESC LIMIT $1 / 2
         ), anywhere AS (
            SELECT id FROM content.{table}
            WHERE {PENDING} AND touched_at >= (SELECT first + random() * (last - first) FROM ends)
            ORDER BY touched_at, id LIMIT $1 / 2
         )
         SELECT id FROM last UNION SELECT id FROM anywhere"
    ))
    .bind::<BigInt, _>(row_limit)
    .load(conn)
    .map(super::stamp::into_ids)
    .map_err(Error::query("load some of the pending rows"))
}

/// How many pages of a table random rows are taken of. 80 MB at most, some hundred thousand rows.
const SAMPLED_PAGES: u32 = 10_000;

/// Loads the ids of random rows, at most `row_limit`: all are as likely where the table is not larger than
/// `SAMPLED_PAGES`, else those of random pages of it. One statement.
///
/// # Errors
///
/// Returns an error if the statement fails.
pub fn load_random(
    conn: &mut Connection,
    kind: Kind,
    row_limit: usize,
) -> Result<Vec<Uuid>, Error> {
    let table = kind.table();
    statement(format!(
        // By the size of the file: statistics may be old, or missing.
        "SELECT id FROM content.{table} TABLESAMPLE SYSTEM ((
            SELECT least(100, 100.0 * {SAMPLED_PAGES} * current_setting('block_size')::integer
                / greatest(1, pg_relation_size('content.{table}')))))
         ORDER BY random() LIMIT $1"
    ))
    .bind::<BigInt, _>(i64::try_from(row_limit).unwrap_or(i64::MAX))
    .load(conn)
    .map(super::stamp::into_ids)
    .map_err(Error::query("load some of the rows"))
}

/// Finds the last place of the pending rows. One statement, one entry of the database index.
///
/// # Errors
///
/// Returns an error if the statement fails.
pub fn find_last_pending(conn: &mut Connection, kind: Kind) -> Result<Option<Position>, Error> {
    let table = kind.table();
    statement(format!(
        "SELECT touched_at, id FROM content.{table} WHERE {PENDING}
         ORDER BY touched_at DESC, id DESC LIMIT 1"
    ))
    .get_result(conn)
    .optional()
    .map_err(Error::query("find the last pending row"))
}

/// Counts the pending rows: reads the whole of their database index.
///
/// # Errors
///
/// Returns an error if the statement fails.
pub fn count_pending(conn: &mut Connection, kind: Kind) -> Result<u64, Error> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = BigInt)]
        rows: i64,
    }
    let table = kind.table();
    statement(format!("SELECT count(*) AS rows FROM content.{table} WHERE {PENDING}"))
        .get_result(conn)
        .map(|row: Row| row.rows.unsigned_abs())
        .map_err(Error::query("count the pending rows"))
}
