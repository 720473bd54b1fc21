//! Keeps Elasticsearch or OpenSearch indices of films, persons and genres exactly in step with a film catalogue
//! in PostgreSQL.
//!
//! ```text
//!  writers ──► PostgreSQL: rows, touched_at, outbox        (triggers, in the writer's transaction)
//!                  │
//!                  │ look for work ── nothing? pause
//!                  ▼
//!      sync::step  │ outbox: touch rows, bury the deleted
//!                  │ a page of pending rows of each kind: row first, then links and people
//!                  ▼
//!      documents   rows in, document out
//!                  │
//!                  ▼
//!      engine:     one bulk request, each document with its version
//!                  │ acknowledged?
//!                  ▼
//!              the stamp, on what is still as it was read
//! ```
//!
//! # The guarantee
//!
//! When writers pause and `etl start` runs, the indices become exactly the documents that PostgreSQL
//! gives: none missing, none extra, none stale. Whatever was killed, refused, delayed, reordered or
//! run twice before.
//!
//! # Invariants
//!
//! 1. PostgreSQL is the truth. The index can be deleted and built again.
//! 2. A row is stamped only after the engine has acknowledged the document of exactly that row.
//!    Killing the process at any point is safe. There is no shutdown code.
//! 3. Writing the same batch twice, or by two processes, or late, leaves the same index as writing it
//!    once.
//! 4. [`documents`] and [`fixture`] do no I/O. Only [`postgres`] names Diesel; only [`elasticsearch`]
//!    names ureq.
//! 5. Every wait has a limit: request, statement, session, pause. Every batch has a size in bytes and
//!    in rows.
//! 6. The users' columns are never written by a sync, and their writers never wait for it.
//!
//! # Where to read on
//!
//! The triggers and the functions that write our columns are in `migrations/`. Then [`sync`], which
//! has the order of things, and its `batch`; then `session`, for what protects against a second
//! leader and a late request, and `rebuild`, for a new index beside the live one. [`kind`] says what a
//! further kind of documents takes.

extern crate openssl_sys as _;
extern crate pq_sys as _;

pub mod backoff;
pub mod cli;
pub mod commands;
pub mod config;
pub mod documents;
pub mod elasticsearch;
pub mod error;
pub mod fixture;
pub mod kind;
pub mod postgres;
pub mod progress;
pub mod sync;

use cli::Command;
use commands::{init_es, load_fixture, migrate, rebuild, rejected, start};
use error::Error;

/// Runs a subcommand.
///
/// # Errors
///
/// Returns an error if the command did not do what it was asked to. What is still true then is said
/// at each command.
pub fn run(command: &Command) -> Result<(), Error> {
    match command {
        Command::InitEs(args) => init_es::run(args),
        Command::LoadFixture(args) => load_fixture::run(args),
        Command::Start(args) => start::run(args),
        Command::Rebuild(args) => rebuild::run(args),
        Command::Migrate(args) => migrate::run(args),
        Command::Rejected(args) => rejected::run(args),
    }
}

/// Reads `.env` of the current folder into the environment, where it sets what is not set already.
///
/// # Errors
///
/// Returns an error if there is such a file and it cannot be read. That there is none is no failure.
pub fn load_env_file() -> Result<(), Error> {
    // By its path: by its name, it would be looked for in all folders above, too.
    match dotenvy::from_path(".env") {
        // Without the line, which may hold a password.
        Err(dotenvy::Error::LineParse(..)) => Err(Error::Usage(vec![
            "the file `.env` has a mistake: each line must be NAME=value, with quotes around a value that has spaces".to_owned(),
        ])),
        Err(err) if !err.not_found() => {
            Err(Error::Usage(vec![format!("the file `.env` cannot be read: {err}")]))
        }
        _ => Ok(()),
    }
}
