//! `etl init-es`: a new index, and a state that has everything loaded into it.
//!
//! How it is made, and why that is safe to kill, is in [`crate::sync::new_index`].

use std::fs;
use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::migrate::migrate;
use super::say;
use crate::config::{ElasticsearchArgs, Mistakes, PostgresArgs};
use crate::elasticsearch::Elasticsearch;
use crate::elasticsearch::index::ALIAS;
use crate::error::Error;
use crate::postgres::connect;
use crate::postgres::migrations::lock_setup;
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
    /// JSON file with the settings and mappings of the index, instead of the built-in ones
    #[arg(long, value_name = "FILE", env = "ETL_MAPPING")]
    mapping: Option<PathBuf>,
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
    let (url, engine) = mistakes.finish(url.zip(engine))?;
    let mapping = args.mapping.as_ref().map(read_mapping).transpose()?;
    let elasticsearch = Elasticsearch::new(&engine)?;

    let mut conn = connect(&url, "etl init-es")?;
    lock_setup(&mut conn)?;
    let switch = Switch::plan(&elasticsearch, args.replace)?;
    migrate(&mut conn)?;

    let name = switch.carry_out(&mut conn, &elasticsearch, mapping, |line| say(line))?;
    say(format_args!(
        "created the index {name} behind the alias {}; `etl start` loads everything",
        elasticsearch.prefixed(ALIAS)
    ));
    Ok(())
}

fn read_mapping(path: &PathBuf) -> Result<Value, Error> {
    let what = || format!("the mapping `{}`", path.display());
    let text = fs::read(path).map_err(|source| Error::Io { what: what(), source })?;
    match serde_json::from_slice(&text) {
        // A sweep after a TRUNCATE walks through the index in this order.
        Ok(Value::Object(definition))
            if definition
                .get("mappings")
                .is_some_and(|m| m["properties"]["id"]["type"] == "keyword") =>
        {
            Ok(Value::Object(definition))
        }
        Ok(_) => Err(Error::State(format!(
            "{} is not a JSON object with `mappings` that have a property `id` of the type `keyword`",
            what()
        ))),
        Err(err) => Err(Error::State(format!("{} is not JSON: {err}", what()))),
    }
}
