//! `etl init-es`: a new index, and a state that has everything loaded into it.
//!
//! How it is made, and why that is safe to kill, is in [`crate::sync::new_index`].

use clap::Args;

use super::migrate::migrate;
use super::say;
use crate::config::{ElasticsearchArgs, KindsArgs, MappingArgs, Mistakes, PostgresArgs};
use crate::elasticsearch::Elasticsearch;
use crate::error::Error;
use crate::postgres::connect;
use crate::postgres::migrations::{check_rights, lock_setup};
use crate::sync::new_index::Switch;

/// Settings of `etl init-es`.
#[derive(Debug, Args)]
pub struct InitEs {
    /// Where the catalogue is.
    #[command(flatten)]
    postgres: PostgresArgs,
    /// Where the index is to be.
    #[command(flatten)]
    elasticsearch: ElasticsearchArgs,
    /// What is to have a new index.
    #[command(flatten)]
    kinds: KindsArgs,
    #[command(flatten)]
    mapping: MappingArgs,
    /// Delete an index of another tool that has the name of our alias
    #[arg(long)]
    replace: bool,
}

/// Runs `etl init-es`.
///
/// # Errors
///
/// Returns an error if either side fails, or if the engine refuses the mapping. If that is found
/// after the state was unbound, `etl start` sends nothing until this command has been run again.
pub fn run(args: &InitEs) -> Result<(), Error> {
    let mut mistakes = Mistakes::default();
    let url = args.postgres.check(&mut mistakes);
    let engine = args.elasticsearch.check(&mut mistakes);
    let kinds = args.kinds.check(&mut mistakes);
    let mappings = args.mapping.check(&mut mistakes);
    let ((url, engine), (kinds, mappings)) =
        mistakes.finish(url.zip(engine).zip(kinds.zip(mappings)))?;
    let mut mappings = mappings.read()?;
    let new = kinds.iter().map(|kind| (*kind, mappings.remove(kind))).collect();
    let elasticsearch = Elasticsearch::new(&engine)?;

    let mut conn = connect(&url, "etl init-es")?;
    lock_setup(&mut conn)?;
    let switch = Switch::plan(&elasticsearch, new, args.replace)?;
    migrate(&mut conn)?;
    check_rights(&mut conn)?;

    let names = switch.carry_out(&mut conn, &elasticsearch, |line| say(line))?;
    for (kind, name) in kinds.into_iter().zip(names) {
        say(format_args!(
            "created the index {name} behind the alias {}",
            elasticsearch.alias(kind)
        ));
    }
    say("`etl start` loads everything");
    Ok(())
}
