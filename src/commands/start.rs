//! `etl start`: keeps the indices in step until told to end.

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};

use super::follow::{Follow, Goal};
use crate::config::{ElasticsearchArgs, KindsArgs, Mistakes, PaceArgs, PostgresArgs};
use crate::elasticsearch::Elasticsearch;
use crate::error::Error;

/// Settings of `etl start`.
#[derive(Debug, Args)]
pub struct Start {
    /// Where the rows come from.
    #[command(flatten)]
    postgres: PostgresArgs,
    /// Where the documents go.
    #[command(flatten)]
    elasticsearch: ElasticsearchArgs,
    /// What is kept.
    #[command(flatten)]
    kinds: KindsArgs,
    /// How much at a time, and how often.
    #[command(flatten)]
    pace: PaceArgs,
    /// End when nothing is left to do, instead of waiting for the next change
    #[arg(long)]
    until_idle: bool,
    /// When an index was deleted, replaced or restored behind our back, make a new one and load everything
    #[arg(long, env = "ETL_REBUILD_LOST_INDEX", value_parser = BoolishValueParser::new(), action = ArgAction::SetTrue)]
    rebuild_lost_index: bool,
}

/// Runs `etl start`. Returns when nothing is pending, if it was asked to; else it does not return.
///
/// # Errors
///
/// Returns an error if the settings are wrong, or if something is in the way that only a person can
/// mend: at the start, or at any time if it was to run until idle. What was not stamped is pending.
pub fn run(args: &Start) -> Result<(), Error> {
    let mut mistakes = Mistakes::default();
    let servers = args.postgres.check(&mut mistakes).zip(args.elasticsearch.check(&mut mistakes));
    let pace = args.pace.check(&mut mistakes);
    let kinds = args.kinds.check(&mut mistakes);
    let ((url, engine), (pace, kinds)) = mistakes.finish(servers.zip(pace.zip(kinds)))?;
    let follow = Follow {
        url,
        elasticsearch: Elasticsearch::new(&engine)?.compressing(pace.gzip),
        kinds,
        pace,
        goal: if args.until_idle { Goal::Idle } else { Goal::Never },
        rebuild_lost_index: args.rebuild_lost_index,
    };
    follow.run()
}
