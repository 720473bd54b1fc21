//! Which subcommands there are.

use clap::{Parser, Subcommand};

use crate::commands::init_es::InitEs;
use crate::commands::load_fixture::LoadFixture;
use crate::commands::migrate::Migrate;
use crate::commands::start::Start;

/// Keeps an Elasticsearch or OpenSearch index exactly in step with a film catalogue in PostgreSQL.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Settings are also read from the environment and from a file `.env` in the current folder.\n\
        A flag wins over the environment, the environment over the file. Logging: RUST_LOG=debug|info|warn."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// A subcommand with its settings.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create the index anew and reset the state, so that the next `etl start` loads everything
    InitEs(InitEs),
    /// Load Django `dumpdata` files into the catalogue, all or nothing
    LoadFixture(LoadFixture),
    /// Keep the index in step with the catalogue until told to end
    Start(Start),
    /// Add the columns, triggers and tables that the sync needs to the database
    Migrate(Migrate),
}
