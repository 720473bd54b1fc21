//! Which subcommands there are.

use clap::{Parser, Subcommand};

use crate::commands::init_es::InitEs;
use crate::commands::load_fixture::LoadFixture;
use crate::commands::migrate::Migrate;
use crate::commands::rebuild::RebuildArgs;
use crate::commands::rejected::Rejected;
use crate::commands::start::Start;

/// Keeps an Elasticsearch or OpenSearch index exactly in step with a film catalogue in PostgreSQL.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Settings are also read from the environment, and from a file `.env` in the current folder.\n\
        A flag wins over the environment, the environment over the file.\n\
        RUST_LOG=warn, info (the default) or debug says how much is logged."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// A subcommand with its settings.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make new, empty indices at once; `etl start` then loads everything into them (`etl rebuild` is for when people search)
    InitEs(InitEs),
    /// Load Django `dumpdata` files into the catalogue, all or nothing
    LoadFixture(LoadFixture),
    /// Keep the indices in step with the catalogue until stopped
    Start(Start),
    /// Make an index anew beside the live one, and let it take its place when it has everything
    Rebuild(RebuildArgs),
    /// Prepare the database alone: our columns, triggers and tables (`etl init-es` does it, too)
    Migrate(Migrate),
    /// List the documents that the engine refuses as they are, and why
    Rejected(Rejected),
}
