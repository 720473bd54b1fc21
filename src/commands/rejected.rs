//! `etl rejected`: which documents the engine refuses as they are, and why.

use clap::Args;

use super::say;
use crate::config::{Mistakes, PostgresArgs};
use crate::error::Error;
use crate::postgres::connect;
use crate::postgres::migrations::check_current;
use crate::postgres::rejected::{RejectedDocument, count_rejected, end_pauses, load_rejected};

/// Settings of `etl rejected`.
#[derive(Debug, Args)]
pub struct Rejected {
    #[command(flatten)]
    postgres: PostgresArgs,
    /// Have all of them tried again at once, by the `etl start` that runs or the next one
    #[arg(long)]
    retry: bool,
}

/// More than a person reads; the view `etl.rejected_documents` has them all.
const LISTED_MAX: i64 = 1_000;

/// Lists the rejected documents on standard output, the latest first.
///
/// # Errors
///
/// Returns an error if PostgreSQL is away, or not prepared. Nothing is changed then.
pub fn run(args: &Rejected) -> Result<(), Error> {
    let mut mistakes = Mistakes::default();
    let url = args.postgres.check(&mut mistakes);
    let mut conn = connect(&mistakes.finish(url)?, "etl rejected")?;
    check_current(&mut conn)?;
    if args.retry {
        let count = end_pauses(&mut conn)?;
        say(format_args!("{count} documents are tried again"));
        return Ok(());
    }
    let documents = load_rejected(&mut conn, LISTED_MAX)?;
    documents.iter().map(describe).for_each(say);
    match count_rejected(&mut conn)? {
        0 => say("no document is rejected"),
        count => say(format_args!(
            "{count} documents are rejected; each is tried again when its row changes, or with --retry"
        )),
    }
    Ok(())
}

fn describe(document: &RejectedDocument) -> String {
    let RejectedDocument { kind, id, version, error_type, reason, attempts, .. } = document;
    let title = document.title.as_deref().unwrap_or_default();
    format!(
        "{kind} {id} \"{title}\"\n  {error_type}: {reason}\n  version {version}, refused {attempts} times since {} (last {}, next {} UTC)",
        document.first_at, document.last_at, document.retry_at
    )
}
