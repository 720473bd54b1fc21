//! One file per subcommand, holding its settings and its `run`.

pub mod follow;
pub mod init_es;
pub mod load_fixture;
pub mod migrate;
pub mod rebuild;
pub mod rejected;
pub mod start;

use std::fmt::Display;
use std::io::{self, Write};

/// Writes a line of a result to the standard output. A reader that has gone away is no failure.
fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}
