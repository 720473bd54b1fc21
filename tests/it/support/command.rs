//! Running `etl` as a user does, as a process.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::{env, fmt, fs};

/// How a command ended, and what it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The exit code. `None` if a signal ended it.
    pub code: Option<i32>,
    /// What is meant for other programs.
    pub stdout: String,
    /// What is meant for people.
    pub stderr: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, stdout, stderr } = self;
        write!(f, "exit code: {code:?}\n--- stdout\n{stdout}--- stderr\n{stderr}---")
    }
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// The `etl` binary, with no setting inherited from the developer's shell or `.env`.
pub fn etl(args: &[&str]) -> Command {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = env::temp_dir().join("etl_it");
        fs::create_dir_all(&folder).expect("create a folder without `.env`");
        folder
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_etl"));
    command.args(args).env_clear().current_dir(folder).stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub fn run(mut command: Command) -> Outcome {
    command.output().expect("start the command").into()
}

/// Runs `etl`, which is to succeed, and returns its standard output.
#[track_caller]
pub fn succeed(args: &[&str]) -> String {
    let outcome = run(etl(args));
    assert!(outcome.code == Some(0), "`etl {}` failed\n{outcome}", args.join(" "));
    outcome.stdout
}

/// Runs `etl`, which is to fail with this exit code, and returns its standard error.
#[track_caller]
pub fn fail(args: &[&str], code: i32) -> String {
    let outcome = run(etl(args));
    let args = args.join(" ");
    assert!(outcome.code == Some(code), "`etl {args}` did not fail with {code}\n{outcome}");
    outcome.stderr
}
