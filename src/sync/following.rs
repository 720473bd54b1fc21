//! A kind that had no index is followed from now on.
//!
//! Writers note what concerns a kind that is followed, and look whether it is. One that has looked before it was,
//! and commits after its rows were read, would leave no trace. So it is followed first, then whoever may have
//! looked before is waited for, and only then an index is made and filled: what they have written is read with
//! the rows.

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::kind::Kind;
use crate::postgres::Connection;
use crate::postgres::follow::{OpenTransaction, begin_following, find_open};
use crate::postgres::state::load_bound_kinds;

/// How long a transaction is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Has those of these kinds followed that have no index, and waits until nobody writes any more who does not know.
///
/// Gives `tell` a line if that takes more than a moment.
///
/// # Errors
///
/// Returns an error if somebody still does after a minute, or if PostgreSQL fails. They may be followed then, and
/// the next call waits again: a kind that has an index is one that was waited for.
pub(super) fn follow(
    conn: &mut Connection,
    kinds: &[Kind],
    mut tell: impl FnMut(&dyn Display),
) -> Result<(), Error> {
    const PAUSE: Duration = Duration::from_millis(100);
    const MOMENT: Duration = Duration::from_secs(2);
    let bound = load_bound_kinds(conn)?;
    let fresh: Vec<Kind> = kinds.iter().copied().filter(|kind| !bound.contains(kind)).collect();
    if fresh.is_empty() {
        return Ok(());
    }
    let since = begin_following(conn, &fresh)?;
    let started = Instant::now();
    let mut is_told = false;
    while let Some(open) = find_open(conn, &since)? {
        if started.elapsed() > PATIENCE {
            return Err(Error::Rival(still_open(&open)));
        }
        if started.elapsed() > MOMENT && !is_told {
            tell(&format_args!("waiting for {} to end", name(&open)));
            is_told = true;
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

fn name(open: &OpenTransaction) -> String {
    match open {
        OpenTransaction { prepared: Some(name), .. } => {
            format!("the prepared transaction `{name}`")
        }
        OpenTransaction { pid: Some(pid), .. } => {
            format!("the transaction of the PostgreSQL process {pid}")
        }
        _ => "an open transaction".to_owned(),
    }
}

fn still_open(open: &OpenTransaction) -> String {
    let remedy = match open {
        OpenTransaction { prepared: Some(name), .. } => format!("ROLLBACK PREPARED '{name}'"),
        OpenTransaction { pid: Some(pid), .. } => format!("SELECT pg_terminate_backend({pid})"),
        _ => "see pg_stat_activity".to_owned(),
    };
    format!(
        "{} has been open for over a minute, and its changes could be missed: wait for it or end it ({remedy}), and run `etl init-es` again",
        name(open)
    )
}
