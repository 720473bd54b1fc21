//! `etl migrate`: the database side alone, for those who give the service role no right to change
//! tables.

use clap::Args;

use super::say;
use crate::config::{Mistakes, PostgresArgs};
use crate::error::Error;
use crate::postgres::migrations::{apply, build_grants, lock_setup, revert};
use crate::postgres::{Connection, connect};

/// Settings of `etl migrate`.
#[derive(Debug, Args)]
pub struct Migrate {
    /// Where the catalogue is.
    #[command(flatten)]
    postgres: PostgresArgs,
    /// Print the SQL that gives a role (`etl` if none is named) the rights for `etl start`, and end
    #[arg(long, value_name = "ROLE", num_args = 0..=1, default_missing_value = "etl", conflicts_with = "revert")]
    print_grants: Option<String>,
    /// Remove all that is ours from the database; the catalogue stays
    #[arg(long)]
    revert: bool,
}

/// Runs `etl migrate`.
///
/// # Errors
///
/// Returns an error if the catalogue cannot be followed, or if a migration fails. Running it again
/// goes on from there.
pub fn run(args: &Migrate) -> Result<(), Error> {
    if let Some(role) = &args.print_grants {
        say(build_grants(role).trim_end());
        return Ok(());
    }
    let mut mistakes = Mistakes::default();
    let url = args.postgres.check(&mut mistakes);
    let mut conn = connect(&mistakes.finish(url)?, "etl migrate")?;
    lock_setup(&mut conn)?;
    if args.revert {
        revert(&mut conn)?;
        say("removed everything of etl from the database");
        return Ok(());
    }
    migrate(&mut conn)
}

/// Applies the pending migrations and says so. To be called under the lock for it.
pub(super) fn migrate(conn: &mut Connection) -> Result<(), Error> {
    let mut applied = 0;
    apply(conn, |name| {
        say(format_args!("applying the migration {name}"));
        applied += 1;
    })?;
    if applied == 0 {
        say("the database is up to date");
    }
    Ok(())
}
