//! The look for work: what is pending, in one statement that costs the same on an idle catalogue
//! of a thousand films and of ten million.

use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Text};

use super::pending::PENDING;
use super::related::NOTED;
use super::statement::statement;
use super::{Connection, Error};
use crate::kind::Kind;

/// What there is to do, and under which epoch it was seen.
#[derive(Debug, Clone, QueryableByName)]
pub struct Work {
    /// The epoch of the term.
    #[diesel(sql_type = BigInt)]
    pub epoch: i64,
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

/// Looks for work, from the start of every queue: for the kinds that are kept, and without what is waiting
/// for others that have an index (`bound`) to be kept again.
///
/// # Errors
///
/// Returns an error if the statement fails.
pub fn load_work(conn: &mut Connection, kept: &[Kind], bound: &[Kind]) -> Result<Work, Error> {
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
        .map(|table| exists("fan_out", table, "fanned_out_at IS NULL", "touched_at, id"))
        .into();
    looks.extend(kept.iter().map(|kind| {
        let is_due = format!("kind = '{}' AND retry_at <= now()", kind.table());
        exists("retry", "rejected", &is_due, "retry_at")
    }));
    looks
        .extend(kept.iter().map(|kind| exists("pending", kind.table(), PENDING, "touched_at, id")));
    let mut work: Work = statement(format!(
        "WITH RECURSIVE queues AS (
            (SELECT op, kind FROM etl.outbox ORDER BY op, kind LIMIT 1)
            UNION ALL
            SELECT next.op, next.kind
            FROM queues AS q CROSS JOIN LATERAL (
                SELECT o.op, o.kind FROM etl.outbox o WHERE (o.op, o.kind) > (q.op, q.kind)
                ORDER BY o.op, o.kind LIMIT 1) AS next
         )
         SELECT epoch, ARRAY(SELECT op || ' ' || kind FROM queues UNION ALL {}) AS queues
         FROM etl.term",
        looks.join(" UNION ALL ")
    ))
    .get_result(conn)
    .map_err(Error::query("look for work"))?;
    let is_waiting = |queue: &str| {
        let (op, table) = queue.split_once(' ').unwrap_or_default();
        let is_left_out = |kind| bound.contains(&kind) && !kept.contains(&kind);
        ["tombstone", "purge"].contains(&op) && Kind::of_table(table).is_some_and(is_left_out)
    };
    work.queues.retain(|queue| !is_waiting(queue));
    Ok(work)
}
