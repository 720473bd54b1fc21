//! `etl rebuild`: a new index that takes the place of the live one without anybody noticing.
//!
//! This asks for it and waits; how it is done is in [`crate::sync`] and `crate::sync::rebuild`.

use clap::Args;
use serde_json::Value;

use super::follow::{Follow, Goal, Rebuilt};
use super::say;
use crate::config::{ElasticsearchArgs, MappingArgs, Mistakes, PaceArgs, PostgresArgs};
use crate::elasticsearch::Elasticsearch;
use crate::error::Error;
use crate::kind::Kind;
use crate::postgres::migrations::{check_current, check_rights};
use crate::postgres::rebuild::{cancel, forget_rebuild, load_rebuild, request};
use crate::postgres::state::{load_bound_kinds, load_state};
use crate::postgres::{Connection, connect};
use crate::sync::new_index::name_of_new;

/// Settings of `etl rebuild`.
#[derive(Debug, Args)]
#[command(
    after_help = "The live index is kept in step meanwhile, and people search it until the new one has everything. \
        It is done by the `etl start` that runs, or else by this command. What was killed goes on with the next \
        `etl start` or `etl rebuild`."
)]
pub struct RebuildArgs {
    #[command(flatten)]
    postgres: PostgresArgs,
    #[command(flatten)]
    elasticsearch: ElasticsearchArgs,
    /// Which index is to be made anew, with commas between several [default: every one there is]
    #[arg(long, value_name = "KIND", default_value = "", hide_default_value = true)]
    kind: String,
    #[command(flatten)]
    mapping: MappingArgs,
    /// Keep the index that was live, without its aliases
    #[arg(long)]
    keep_old: bool,
    /// Drop a rebuild that is under way, or was stopped
    #[arg(long)]
    cancel: bool,
    #[command(flatten)]
    pace: PaceArgs,
}

/// Runs `etl rebuild`.
///
/// # Errors
///
/// Returns an error if the settings are wrong, if either side fails for good, or if the new index was given up.
/// The live index is as it was then.
pub fn run(args: &RebuildArgs) -> Result<(), Error> {
    let mut mistakes = Mistakes::default();
    let servers = args.postgres.check(&mut mistakes).zip(args.elasticsearch.check(&mut mistakes));
    let pace = args.pace.check(&mut mistakes);
    let mappings = args.mapping.check(&mut mistakes);
    let named = check_kinds(&args.kind, &mut mistakes);
    let ((url, engine), ((pace, mappings), named)) =
        mistakes.finish(servers.zip(pace.zip(mappings).zip(named)))?;
    let mut mappings = mappings.read()?;
    let elasticsearch = Elasticsearch::new(&engine)?.compressing(pace.gzip);

    let mut conn = connect(&url, "etl rebuild")?;
    check_current(&mut conn)?;
    check_rights(&mut conn)?;
    let bound = load_bound_kinds(&mut conn)?;
    let kinds = check_bound(&bound, named)?;
    if args.cancel {
        return cancel_all(&mut conn, &elasticsearch, &kinds);
    }
    let mut indices = Vec::new();
    for kind in kinds.iter().copied() {
        let mapping = mappings.remove(&kind);
        let name = ask(&mut conn, &elasticsearch, kind, mapping, args.keep_old)?;
        indices.push((kind, name));
    }
    drop(conn);
    let follow = Follow {
        url,
        elasticsearch,
        // While this process leads, nobody else keeps the others.
        kinds: bound,
        pace,
        goal: Goal::Rebuilt(Rebuilt::new(indices.clone())),
        rebuild_lost_index: false,
    };
    follow.run()?;
    for (kind, name) in indices {
        say(format_args!("the index {name} has taken the place of the former one of {kind}"));
    }
    Ok(())
}

/// Turns the text into kinds; none are named where it is empty.
fn check_kinds(raw: &str, mistakes: &mut Mistakes) -> Option<Vec<Kind>> {
    let named = raw.split(',').map(str::trim).filter(|kind| !kind.is_empty());
    named.map(|kind| mistakes.parse("--kind", kind)).collect()
}

/// Returns the kinds that were named, or all that have an index.
fn check_bound(bound: &[Kind], named: Vec<Kind>) -> Result<Vec<Kind>, Error> {
    if let Some(kind) = named.iter().find(|kind| !bound.contains(kind)) {
        return Err(Error::State(format!(
            "there is no index of {kind} yet: run `etl init-es --kinds {kind}`"
        )));
    }
    if bound.is_empty() {
        return Err(Error::State("there is no index yet: run `etl init-es`".to_owned()));
    }
    Ok(if named.is_empty() { bound.to_vec() } else { named })
}

/// Asks for a new index of a kind, unless one is under way. Returns its name.
fn ask(
    conn: &mut Connection,
    elasticsearch: &Elasticsearch,
    kind: Kind,
    mapping: Option<Value>,
    keep_old: bool,
) -> Result<String, Error> {
    let name = name_of_new(elasticsearch, kind);
    let mapping = match mapping {
        Some(mapping) => Some(mapping.to_string()),
        None => load_state(conn, kind)?.mapping,
    };
    if request(conn, kind, &name, mapping.as_deref(), keep_old)? {
        return Ok(name);
    }
    let rebuild = load_rebuild(conn, kind)?;
    let name = rebuild.map_or(name, |rebuild| rebuild.index_name);
    say(format_args!("a rebuild of {kind} is under way already, into the index {name}"));
    Ok(name)
}

/// A process that leads may be at the same: either does it again without harm.
fn cancel_all(
    conn: &mut Connection,
    elasticsearch: &Elasticsearch,
    kinds: &[Kind],
) -> Result<(), Error> {
    for kind in kinds.iter().copied() {
        if let Some(name) = cancel(conn, kind)? {
            elasticsearch.delete_index(&name)?;
            forget_rebuild(conn, kind)?;
            say(format_args!("removed the new index {name}"));
        } else {
            say(format_args!("no rebuild of {kind} is under way that could be cancelled"));
        }
    }
    Ok(())
}
