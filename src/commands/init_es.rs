//! `etl init-es`: a new index, and a state that has everything loaded into it.
//!
//! The order makes it safe to kill, and to run beside a working `etl start`:
//!
//! 1. The state is unbound and its epoch moved: from now on nothing is sent, stamped or forgotten.
//! 2. The new index takes the place of the old ones, behind the alias.
//! 3. The outbox and the stamps are forgotten, the stamps in chunks.
//! 4. The state is bound to the new index. Only now anything is sent.
//!
//! Killed before 4, the state stays unbound, `etl start` says so, and another run starts from 1.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use log::warn;
use serde_json::Value;

use super::migrate::migrate;
use super::say;
use crate::config::{ElasticsearchArgs, Mistakes, PostgresArgs};
use crate::elasticsearch::index::{ALIAS, AliasAction, Index, build_definition};
use crate::elasticsearch::{self, Elasticsearch};
use crate::error::Error;
use crate::postgres::migrations::lock_setup;
use crate::postgres::state::{self, Binding};
use crate::postgres::{Connection, connect};

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
    let definition = build_definition(args.mapping.as_ref().map(read_mapping).transpose()?);
    let elasticsearch = Elasticsearch::new(&engine)?;

    let mut conn = connect(&url, "etl init-es")?;
    lock_setup(&mut conn)?;
    let cluster_uuid = elasticsearch.load_identity()?.cluster_uuid;
    let plan = plan_switch(&elasticsearch, args.replace)?;
    migrate(&mut conn)?;

    // The engine says what it thinks of the mapping before anything is given up.
    create(&elasticsearch, &plan.name, &definition)?;
    state::unbind(&mut conn)?;
    elasticsearch.update_aliases(&plan.actions)?;
    plan.removed.iter().for_each(say);
    let index = elasticsearch.find_index(&plan.name)?.ok_or_else(|| {
        Error::Rival(format!("the index {} was deleted by somebody else", plan.name))
    })?;
    reset(&mut conn)?;
    let database = state::load_identity(&mut conn)?;
    let index_prefix = elasticsearch.prefix().to_owned();
    let binding = Binding {
        index_name: index.name,
        index_uuid: index.uuid,
        index_prefix,
        cluster_uuid,
        database,
    };
    state::bind(&mut conn, &binding)?;
    say(format_args!(
        "created the index {} behind the alias {}; `etl start` loads everything",
        plan.name,
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

/// What the new index is called, and what it takes the place of.
struct Switch {
    name: String,
    actions: Vec<AliasAction>,
    /// A line for each thing that is removed.
    removed: Vec<String>,
}

/// Looks what stands in the place of the new index. Changes nothing.
fn plan_switch(elasticsearch: &Elasticsearch, replace: bool) -> Result<Switch, Error> {
    let alias = elasticsearch.prefixed(ALIAS);
    // Milliseconds, so that two runs in one second do not meet.
    let name = format!("{alias}_{}", Timestamp::now().strftime("%Y%m%d%H%M%S%3f"));
    let add = AliasAction::Add { index: name.clone(), alias: alias.clone() };
    let mut switch = Switch { name, actions: vec![add], removed: Vec::new() };

    let former = elasticsearch.load_indices(&format!("{alias}_*"))?;
    // The index of a prefix that begins with our alias is somebody else's.
    let is_former = |index: &Index| {
        let time = &index.name[alias.len() + 1..];
        index.is_ours && !time.is_empty() && time.bytes().all(|byte| byte.is_ascii_digit())
    };
    for index in former.into_iter().filter(is_former) {
        switch.removed.push(format!("removed our former index {}", index.name));
        switch.actions.push(AliasAction::Delete { index: index.name });
    }
    for index in elasticsearch.load_indices(&alias)? {
        switch.displace(index, &alias, replace)?;
    }
    Ok(switch)
}

impl Switch {
    /// Takes the name of our alias away from an index that is not one of our former ones.
    fn displace(&mut self, index: Index, alias: &str, replace: bool) -> Result<(), Error> {
        let delete = AliasAction::Delete { index: index.name.clone() };
        if self.actions.contains(&delete) {
            return Ok(());
        }
        if index.name != alias {
            self.removed
                .push(format!("took the alias {alias} off the index {}, which stays", index.name));
            self.actions.push(AliasAction::Remove { index: index.name, alias: alias.to_owned() });
            return Ok(());
        }
        if !replace {
            return Err(Error::State(format!(
                "there is an index {alias} that etl did not make, where its alias is to be: delete or rename it, or run `etl init-es --replace` to have it deleted"
            )));
        }
        self.removed.push(format!("removed the index {alias}, which another tool had made"));
        self.actions.push(delete);
        Ok(())
    }
}

fn create(elasticsearch: &Elasticsearch, name: &str, definition: &Value) -> Result<(), Error> {
    elasticsearch.create_index(name, definition).map_err(|err| match err {
        elasticsearch::Error::Status { status: 400, kind, reason, .. } => {
            Error::State(format!("the engine refuses the mapping: {kind}: {reason}"))
        }
        err => err.into(),
    })
}

/// Forgets all stamps. A film that a writer holds is waited for, without holding any other.
fn reset(conn: &mut Connection) -> Result<(), Error> {
    state::forget_changes(conn)?;
    let mut looked_at = 0;
    loop {
        let locked_by_others = state::reset_films(conn, |films| {
            if films / 100_000 > looked_at / 100_000 {
                say(format_args!("reset {films} films so far"));
            }
            looked_at = films;
        })?;
        if locked_by_others == 0 {
            return Ok(());
        }
        warn!(
            "{locked_by_others} films are locked by other sessions (see pg_stat_activity); trying again"
        );
        thread::sleep(Duration::from_secs(1));
    }
}
