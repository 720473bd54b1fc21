//! The look for work: what is pending, in one statement that costs the same on an idle catalogue
//! of a thousand films and of ten million.
//!
//! Or nearly: right after a load, and until autovacuum has come, the database index of pending rows has dead
//! entries of all of them, which a look from its start has to pass. So most looks of an idle process are for what
//! was touched lately.

use diesel::data_types::PgTimestamp;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Text, Timestamptz};

use super::pending::{PENDING, Position};
use super::related::NOTED;
use super::statement::statement;
use super::{Connection, Error, Timestamp};
use crate::kind::Kind;

/// What there is to do, and under which epoch it was seen.
#[derive(Debug, Clone, QueryableByName)]
pub struct Work {
    /// The epoch of the term.
    #[diesel(sql_type = BigInt)]
    pub epoch: i64,
    /// When it was looked for, by PostgreSQL's clock.
    #[diesel(sql_type = Timestamptz)]
    pub looked_at: Timestamp,
    /// The queues that are not empty, each by its name and table.
    #[diesel(sql_type = Array<Text>)]
    queues: Vec<String>,
}

impl Work {
    /// Returns true if there is nothing to do.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.queues.is_empty()
    }

    /// Returns true if there are entries of this name in the outbox, for rows of this kind.
    #[must_use]
    pub fn has(&self, op: &str, kind: Kind) -> bool {
        self.queues.iter().any(|queue| queue.split_once(' ') == Some((op, kind.table())))
    }

    /// Returns true if there are entries of this name in the outbox, or rows that are still to be noted
    /// there.
    #[must_use]
    pub fn has_any(&self, op: &str) -> bool {
        self.queues.iter().any(|queue| queue.split(' ').next() == Some(op))
    }
}

/// For which kinds is looked.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// Those that are kept.
    pub kept: &'a [Kind],
    /// Those that have an index. What waits for one of them to be kept again is no work.
    pub bound: &'a [Kind],
    /// Those whose pending rows are being read anyway. They count as pending, and are not looked for: the dead
    /// entries of all that has been stamped lie before them.
    pub in_backlog: &'a [Kind],
}

/// Looks for work, from the start of every queue.
///
/// # Errors
///
/// Returns an error if the statement fails.
pub fn load_work(conn: &mut Connection, scope: Scope<'_>) -> Result<Work, Error> {
    load_work_since(conn, scope, Position::START.touched_at)
}

/// The same, but of the rows only those that were touched since a second before the last look. One that becomes
/// visible later than that, as its transaction was long or the clock was set back, is missed.
///
/// # Errors
///
/// Returns an error if the statement fails.
pub fn load_recent_work(
    conn: &mut Connection,
    scope: Scope<'_>,
    looked_at: Timestamp,
) -> Result<Work, Error> {
    const SECOND: i64 = 1_000_000;
    load_work_since(conn, scope, PgTimestamp(looked_at.0.saturating_sub(SECOND)))
}

fn load_work_since(
    conn: &mut Connection,
    scope: Scope<'_>,
    since: Timestamp,
) -> Result<Work, Error> {
    let mut work: Work = statement(format!(
        "WITH RECURSIVE queues AS (
            (SELECT op, kind FROM etl.outbox ORDER BY op, kind LIMIT 1)
            UNION ALL
            SELECT next.op, next.kind
            FROM queues AS q CROSS JOIN LATERAL (
                SELECT o.op, o.kind FROM etl.outbox o WHERE (o.op, o.kind) > (q.op, q.kind)
                ORDER BY o.op, o.kind LIMIT 1) AS next
         )
         SELECT epoch, now() AS looked_at,
            ARRAY(SELECT op || ' ' || kind FROM queues UNION ALL {}) AS queues
         FROM etl.term",
        looks_at_rows(scope).join(" UNION ALL ")
    ))
    .bind::<Timestamptz, _>(since)
    .get_result(conn)
    .map_err(Error::query("look for work"))?;
    let is_waiting = |queue: &str| {
        let (op, table) = queue.split_once(' ').unwrap_or_default();
        let is_left_out = |kind| scope.bound.contains(&kind) && !scope.kept.contains(&kind);
        ["tombstone", "purge"].contains(&op) && Kind::of_table(table).is_some_and(is_left_out)
    };
    work.queues.retain(|queue| !is_waiting(queue));
    Ok(work)
}

/// Returns a SELECT for each queue of rows, which gives its name if there are any touched since `$1`.
fn looks_at_rows(Scope { kept, in_backlog, .. }: Scope<'_>) -> Vec<String> {
    // Each look reads one entry of a database index made for it. ORDER BY, and not EXISTS alone,
    // so that no plan reads a table full of dead rows from its beginning.
    let exists = |name: &str, table: &str, condition: &str, order: &str| {
        let schema = if table == "rejected" { "etl" } else { "content" };
        format!(
            "SELECT '{name} {table}' WHERE EXISTS (SELECT FROM (
                SELECT FROM {schema}.{table} WHERE {condition} ORDER BY {order} LIMIT 1) AS first)"
        )
    };
    let mut looks: Vec<String> = NOTED
        .map(|table| {
            exists("fan_out", table, "fanned_out_at IS NULL AND touched_at >= $1", "touched_at, id")
        })
        .into();
    looks.extend(kept.iter().map(|kind| {
        let is_due = format!("kind = '{}' AND retry_at <= now()", kind.table());
        exists("retry", "rejected", &is_due, "retry_at")
    }));
    let is_pending = format!("{PENDING} AND touched_at >= $1");
    looks.extend(kept.iter().map(|kind| {
        if in_backlog.contains(kind) {
            return format!("SELECT 'pending {}'", kind.table());
        }
        exists("pending", kind.table(), &is_pending, "touched_at, id")
    }));
    looks
}
