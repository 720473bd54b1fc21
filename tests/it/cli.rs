//! The command line: help, settings, `.env`, mistakes, and that no password is ever printed.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use clap::CommandFactory;
use etl::cli::Cli;

use crate::support::command::{Outcome, etl, fail, run, succeed};
use crate::support::world::World;

// Help --------------------------------------------------------------------------------------------

#[test]
fn help_is_as_it_is_pinned() {
    let mut texts = vec![("etl.txt".to_owned(), succeed(&["--help"]))];
    for command in Cli::command().get_subcommands() {
        let name = command.get_name();
        texts.push((format!("etl-{name}.txt"), succeed(&[name, "--help"])));
    }
    texts.push(("settings.md".to_owned(), settings_table()));
    let names: BTreeSet<String> = texts.iter().map(|(name, _)| name.clone()).collect();
    for (name, text) in texts {
        check_pinned(&name, &text);
    }
    let pinned = fs::read_dir(root().join("tests/it/help")).unwrap();
    let pinned: BTreeSet<String> =
        pinned.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(pinned, names, "there is a text of a command that is no more");
}

/// Compares with a file of `tests/it/help`, or writes it if `UPDATE_HELP` is set.
#[track_caller]
fn check_pinned(name: &str, text: &str) {
    let path = root().join("tests/it/help").join(name);
    if env::var_os("UPDATE_HELP").is_some() {
        fs::write(&path, text).unwrap();
    }
    let pinned = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        pinned == text,
        "{} is\n{pinned}\ninstead of\n{text}\nSet UPDATE_HELP=1 to have it rewritten.",
        path.display()
    );
}

#[test]
fn version_is_that_of_the_package() {
    assert_eq!(succeed(&["--version"]), format!("etl {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_slip_on_the_command_line_is_a_usage_error() {
    for (args, advice) in [
        (&["stat"][..], "'start'"),
        (&["start", "--bach-size", "5"], "'--batch-size'"),
        (&["migrate", "--revert", "--print-grants"], "cannot be used with"),
        (&[], "Usage: etl <COMMAND>"),
    ] {
        let stderr = fail(args, 2);
        assert!(stderr.contains(advice), "{stderr}");
    }
}

#[test]
fn the_program_needs_libc_alone() {
    let mut command = std::process::Command::new("ldd");
    command.arg(env!("CARGO_BIN_EXE_etl"));
    let outcome = run(command);
    let libraries = outcome.stdout.lines().filter_map(|line| line.split_whitespace().next());
    // libm is a part of glibc.
    let known = ["linux-vdso", "libc.so", "libm.so", "ld-linux"];
    for library in libraries {
        assert!(known.iter().any(|name| library.contains(name)), "it needs {library}\n{outcome}");
    }
}

// Settings ----------------------------------------------------------------------------------------

/// A flag, its variable and its default. Empty: it has none.
type Setting = (String, String, String);

#[test]
fn the_readme_lists_exactly_the_settings_that_there_are() {
    let readme = fs::read_to_string(root().join("README.md")).expect("there is a README.md");
    let table = readme
        .split_once("<!-- settings -->")
        .and_then(|(_, rest)| rest.split_once("<!-- /settings -->"))
        .map(|(table, _)| table)
        .expect("README.md has a table between `<!-- settings -->` and `<!-- /settings -->`");
    let listed: BTreeSet<Setting> = table.lines().filter_map(parse_row).collect();
    let settings: BTreeSet<Setting> = settings().into_iter().map(|(setting, _)| setting).collect();
    assert_eq!(listed, settings, "the rows of tests/it/help/settings.md belong into README.md");
}

#[test]
fn the_example_of_an_env_file_lists_exactly_the_variables_that_there_are() {
    let example = fs::read_to_string(root().join(".env.example")).unwrap();
    let listed: BTreeSet<(String, String)> = example
        .lines()
        .filter_map(|line| line.trim_start_matches('#').trim().split_once('='))
        .filter(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let names: BTreeSet<&str> = listed.iter().map(|(name, _)| &**name).collect();
    let settings = settings();
    let variables = settings.iter().map(|((_, variable, _), _)| &**variable);
    let variables: BTreeSet<&str> =
        variables.filter(|name| !name.is_empty()).chain(["RUST_LOG"]).collect();
    assert_eq!(names, variables);
    for ((_, variable, default), _) in settings {
        if !default.is_empty() {
            let line = (variable, default);
            assert!(listed.contains(&line), ".env.example has another default than {line:?}");
        }
    }
}

/// All settings of all commands with their help, in the order of the commands.
fn settings() -> Vec<(Setting, String)> {
    let mut settings: Vec<(Setting, String)> = Vec::new();
    for command in Cli::command().get_subcommands() {
        for arg in command.get_arguments() {
            let Some(flag) = arg.get_long().filter(|flag| *flag != "help") else { continue };
            let variable = arg.get_env().and_then(|name| name.to_str()).unwrap_or_default();
            let default = match arg.get_default_values() {
                [value] if !arg.is_hide_default_value_set() => value.to_str().unwrap_or_default(),
                _ => "",
            };
            let default = if arg.get_action().takes_values() { default } else { "" };
            let setting = (format!("--{flag}"), variable.to_owned(), default.to_owned());
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            match settings.iter().find(|(other, _)| other.0 == setting.0) {
                Some(known) => assert_eq!(*known, (setting, help), "of two commands"),
                None => settings.push((setting, help)),
            }
        }
    }
    settings
}

fn settings_table() -> String {
    let row = |((flag, variable, default), help): (Setting, String)| {
        let cells = [flag, variable, default].map(|word| match &*word {
            "" => String::new(),
            word => format!("`{word}`"),
        });
        format!("| {} | {help} |\n", cells.join(" | "))
    };
    let rows: String = settings().into_iter().map(row).collect();
    format!("| flag | variable | default | meaning |\n| --- | --- | --- | --- |\n{rows}")
}

fn parse_row(line: &str) -> Option<Setting> {
    let mut cells =
        line.trim().strip_prefix('|')?.split('|').map(|cell| cell.trim().trim_matches('`'));
    let setting = (cells.next()?.to_owned(), cells.next()?.to_owned(), cells.next()?.to_owned());
    // Not the line below the heading, which has dashes alone.
    setting.0.starts_with("--").then_some(setting).filter(|(flag, ..)| !flag.ends_with('-'))
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let mut command = etl(&["start", "--batch-size", "0", "--poll-interval", "never"]);
    command
        .env("ELASTICSEARCH_URL", "ftp://elastic:hunter2@engine")
        .env("ELASTICSEARCH_CA", "/nowhere/ca.pem")
        .env("ETL_INDEX_PREFIX", "Films")
        .env("ETL_BULK_BYTES", "lots");
    let outcome = run(command);
    assert_eq!((outcome.code, &*outcome.stdout), (Some(2), ""), "{outcome}");
    assert_eq!(
        outcome.stderr,
        "etl: --database-url (DATABASE_URL) is missing; \
         --elasticsearch-url (ELASTICSEARCH_URL) is not a URL such as http://127.0.0.1:9200; \
         --index-prefix (ETL_INDEX_PREFIX) `Films` is not up to 100 of a-z, 0-9, `-`, `_` and `.`, \
         beginning with a letter or digit; \
         --elasticsearch-ca (ELASTICSEARCH_CA) `/nowhere/ca.pem` cannot be read: \
         No such file or directory (os error 2); \
         --batch-size (ETL_BATCH_SIZE) `0` is not a whole number from 1 to 1000000; \
         --bulk-bytes (ETL_BULK_BYTES) `lots` is not a size from 1KiB to 100MiB, such as 5MiB; \
         --poll-interval (ETL_POLL_INTERVAL) `never` is not a time from 1ms to 60m, such as 100ms or 2s\n"
    );
}

#[test]
fn every_command_asks_for_the_database() {
    for args in [&["init-es"][..], &["load-fixture", "films.json"], &["start"], &["migrate"]] {
        assert_eq!(fail(args, 2), "etl: --database-url (DATABASE_URL) is missing\n");
    }
}

// The file `.env` ---------------------------------------------------------------------------------

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let folder = Folder::new("env_file");
    fs::write(folder.0.join(".env"), "# Ours\nETL_BATCH_SIZE='of the file'\nETL_BULK_BYTES=5MiB\n")
        .unwrap();
    let report = |args: &[&str], variable: Option<&str>| {
        let mut command = folder.etl(args);
        command.envs(variable.map(|value| ("ETL_BATCH_SIZE", value)));
        run(command).stderr
    };
    let url = "--database-url=postgres://127.0.0.1/films";
    let expected = |value: &str| {
        format!(
            "etl: --batch-size (ETL_BATCH_SIZE) `{value}` is not a whole number from 1 to 1000000\n"
        )
    };
    assert_eq!(report(&["start", url], None), expected("of the file"));
    assert_eq!(report(&["start", url], Some("of the environment")), expected("of the environment"));
    let flag = "--batch-size=of the flag";
    assert_eq!(report(&["start", url, flag], Some("of the environment")), expected("of the flag"));
}

#[test]
fn a_broken_env_file_is_said_in_one_line() {
    let folder = Folder::new("broken_env_file");
    fs::write(folder.0.join(".env"), "ETL_BATCH_SIZE=1 000\n").unwrap();
    let outcome = run(folder.etl(&["start"]));
    assert_eq!((outcome.code, &*outcome.stdout), (Some(2), ""), "{outcome}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome}");
    assert!(outcome.stderr.starts_with("etl: the file `.env` has a mistake"), "{outcome}");
}

#[test]
fn an_env_file_in_a_folder_above_is_not_read() {
    let folder = Folder::new("env_file_above");
    fs::write(folder.0.join(".env"), "DATABASE_URL=nonsense\n").unwrap();
    let below = folder.0.join("below");
    fs::create_dir(&below).unwrap();
    let mut command = etl(&["migrate"]);
    command.current_dir(below);
    assert_eq!(run(command).stderr, "etl: --database-url (DATABASE_URL) is missing\n");
}

#[test]
fn a_broken_env_file_does_not_show_its_passwords() {
    let folder = Folder::new("secret_env_file");
    for line in [
        "DATABASE_URL=postgres://films:hunter2 3@host/films",
        "export hunter2",
        "PGPASSWORD='hunter2",
        "PGPASSWORD=hunter2=3 4",
    ] {
        fs::write(folder.0.join(".env"), format!("{line}\n")).unwrap();
        let outcome = run(folder.etl(&["start"]));
        assert_eq!(outcome.code, Some(2), "{outcome}");
        assert!(!outcome.stderr.contains("hunter2"), "{outcome}");
    }
}

// Passwords ---------------------------------------------------------------------------------------

/// A password that is on no other occasion in the output, and what is sent instead of it:
/// `elastic:hunter2` in Base64.
const SECRETS: [&str; 3] = ["hunter2", "aHVudGVyMg", "ZWxhc3RpYzpodW50ZXIy"];

#[test]
fn no_password_is_printed_when_a_server_is_away() {
    let world = World::bare("cli_secrets_away", "");
    let port = closed_port();
    let away = [
        ("DATABASE_URL", format!("postgres://films:hunter2@127.0.0.1:{port}/films")),
        ("DATABASE_URL", format!("host=127.0.0.1 port={port} user=films password=hunter2")),
        ("ELASTICSEARCH_URL", format!("http://elastic:hunter2@127.0.0.1:{port}")),
        ("ELASTICSEARCH_URL", format!("https://elastic:hunter2@127.0.0.1:{port}")),
    ];
    for (variable, url) in away {
        for args in [&["init-es"][..], &["migrate"], &["start"]] {
            let mut command = world.etl(args);
            command.env(variable, &url).env("RUST_LOG", "trace");
            check_silent(command);
        }
    }
}

#[test]
fn no_password_is_printed_while_all_goes_well() {
    let mut world = World::bare("cli_secrets", "");
    let engine = world.engine.url.replace("://", "://elastic:hunter2@");
    for args in [&["init-es"][..], &["start", "--until-idle"]] {
        let mut command = world.etl(args);
        command.env("ELASTICSEARCH_URL", &engine).env("RUST_LOG", "trace");
        check_silent(command);
        world.sql("INSERT INTO content.film_work (id, title) VALUES (gen_random_uuid(), 'Film')");
        let mut command = world.etl(args);
        command.env("ELASTICSEARCH_API_KEY", "hunter2").env("RUST_LOG", "trace");
        check_silent(command);
    }
}

#[test]
fn no_part_of_a_password_is_printed_when_the_url_is_broken() {
    for url in [
        "postgres://films:hunter2%zz@127.0.0.1/films",
        "postgres://films:hunter2 3@127.0.0.1/films",
        "postgres://films:hunter2/3@127.0.0.1/films",
        "postgres://films:hunter2@3@127.0.0.1/films",
        "postgres://films:hunter2?3@127.0.0.1/films",
        "postgres://films:hunter2#3@127.0.0.1/films",
        "postgres://films:hunter2@[127.0.0.1/films",
        "postgres://films:hunter2@127.0.0.1/films?password",
        "postgres://films@127.0.0.1/films?password=hunter2%",
        "postgresql://films:[hunter2@127.0.0.1/films",
        "films:hunter2@127.0.0.1/films",
        "host=127.0.0.1 password=1 hunter2",
        "host=127.0.0.1 password='hunter2",
        "host=127.0.0.1 password=1 hunter2=3",
    ] {
        let mut command = etl(&["migrate"]);
        command.env("DATABASE_URL", url).env("RUST_LOG", "trace");
        check_silent(command);
    }
    for url in [
        "http://elastic:hunter2%zz@127.0.0.1",
        "http://elastic:hunter2 3@127.0.0.1",
        "http://elastic:hunter2/3@127.0.0.1",
        "http://elastic:hunter2#3@127.0.0.1",
        "http://elastic:hunter2@",
        "elastic:hunter2@127.0.0.1",
    ] {
        let mut command = etl(&["init-es"]);
        command.env("DATABASE_URL", format!("postgres://127.0.0.1:{}/films", closed_port()));
        command.env("ELASTICSEARCH_URL", url).env("RUST_LOG", "trace");
        check_silent(command);
    }
}

/// Runs a command for three seconds at most, and makes sure that it prints no secret.
#[track_caller]
fn check_silent(mut command: Command) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(3);
    while child.try_wait().unwrap().is_none() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let outcome = Outcome::from(child.wait_with_output().unwrap());
    let printed = outcome.to_string();
    assert!(printed.lines().count() > 4, "it said nothing\n{outcome}");
    // A request in hexadecimal would show the password in pieces.
    for secret in SECRETS.into_iter().chain([" TRACE "]) {
        assert!(!printed.contains(secret), "{command:?}\n{outcome}");
    }
}

// Helpers -----------------------------------------------------------------------------------------

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A port where nobody listens.
fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A folder of one test alone, to run the program in. Removed with the value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("etl_{name}_{}", process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn etl(&self, args: &[&str]) -> Command {
        let mut command = etl(args);
        command.current_dir(&self.0);
        command
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
