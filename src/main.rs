//! The command line of `etl`; everything else is in the library.

use std::process::ExitCode;

use clap::Parser;
use etl::cli::Cli;
use etl::{error, progress};

fn main() -> ExitCode {
    if let Err(err) = etl::load_env_file() {
        eprintln!("etl: {}", error::chain(&err));
        return ExitCode::from(2);
    }
    let cli = Cli::parse();
    progress::init_logging();

    match etl::run(&cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("etl: {}", error::chain(&err));
            match err {
                error::Error::Usage(_) => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}
