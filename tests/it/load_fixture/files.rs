//! Where fixtures come from: several files, packed ones, standard input, two commands at once.

use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::thread;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use super::{Catalogue, SCI_FI, key, object, star_wars, texts};
use crate::support::command::{Outcome, etl};

#[test]
fn of_several_files_all_are_loaded_or_none() {
    let catalogue = Catalogue::new("fixture_files");
    let mut links = star_wars();
    let rows = links.as_array_mut().unwrap().split_off(2);
    // The links come in the file before what they link.
    catalogue.write("links.json", links.to_string());
    catalogue.write("rows.json", json!(rows).to_string());
    catalogue.write("broken.json", "[");

    let outcome = catalogue.load(&["links.json", "rows.json", "broken.json"]);
    assert_eq!(
        outcome.stderr,
        "etl: fixture `broken.json`, object 1: EOF while parsing a list at line 1 column 1\n"
    );
    assert_eq!(outcome.code, Some(1));
    assert!(catalogue.rows().is_empty());

    let outcome = catalogue.load(&["links.json", "rows.json"]);
    assert!(outcome.stdout.starts_with("loaded 5 rows from 2 files: "), "{outcome}");
    // What is linked may also be in the catalogue alone.
    let outcome = catalogue.load(&["links.json"]);
    assert!(outcome.stdout.ends_with("(0 written, 2 already so)\n"), "{outcome}");
}

#[test]
fn of_rows_with_the_same_key_the_last_one_counts() {
    let catalogue = Catalogue::new("fixture_last");
    let genre = |name: &str| object("movies.genre", SCI_FI, json!({"name": name}));
    catalogue.write("first.json", json!([genre("1"), genre("2")]).to_string());
    catalogue.write("second.json", json!([genre("3"), genre("4")]).to_string());
    for (files, name) in [
        (["first.json", "second.json"], "4"),
        (["second.json", "first.json"], "2"),
        (["second.json", "first.json"], "2"),
    ] {
        let outcome = catalogue.load(&files);
        assert!(outcome.stdout.starts_with("loaded 1 row from 2 files: 1 genre ("), "{outcome}");
        let mut client = catalogue.database.client();
        assert_eq!(texts(&mut client, "SELECT name FROM content.genre"), [name]);
    }
}

#[test]
fn objects_of_other_models_are_skipped_with_a_count() {
    let catalogue = Catalogue::new("fixture_models");
    let mut fixture = star_wars();
    let others = [
        json!({"model": "auth.user", "fields": {"username": "me"}}),
        json!({"model": "sessions.session", "pk": "x", "fields": {}}),
        json!({"model": "admin.logentry", "pk": 2, "fields": {"object_id": "3"}}),
    ];
    fixture.as_array_mut().unwrap().extend(others);
    let said = catalogue.load_json(&fixture);
    let skipped = "(5 written, 0 already so); skipped 3 objects of other models\n";
    assert!(said.ends_with(skipped), "{said}");
}

#[test]
fn a_fixture_may_be_packed_or_come_from_standard_input() {
    let catalogue = Catalogue::new("fixture_packed");
    let plain = star_wars().to_string().into_bytes();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&plain).unwrap();
    let packed = encoder.finish().unwrap();

    catalogue.write("movies.json.gz", &packed);
    let outcome = catalogue.load(&["movies.json.gz"]);
    assert!(outcome.stdout.ends_with("(5 written, 0 already so)\n"), "{outcome}");

    for input in [packed, plain] {
        let command = etl(&["load-fixture", "-", "--database-url", &catalogue.database.url()]);
        let outcome = feed(command, |stdin| stdin.write_all(&input));
        assert!(outcome.stdout.ends_with("(0 written, 5 already so)\n"), "{outcome}");
    }

    catalogue.write("movies.json.gz", &b"\x1F\x8B and then no gzip"[..]);
    let outcome = catalogue.load(&["movies.json.gz"]);
    assert_eq!(outcome.code, Some(1), "{outcome}");
    assert_eq!(
        outcome.stderr,
        "etl: could not read fixture `movies.json.gz`: invalid gzip header\n"
    );
}

#[test]
fn standard_input_can_be_read_once_only() {
    let catalogue = Catalogue::new("fixture_stdin");
    let command = etl(&["load-fixture", "-", "-", "--database-url", &catalogue.database.url()]);
    let outcome = feed(command, |stdin| stdin.write_all(star_wars().to_string().as_bytes()));
    assert_eq!(outcome.stderr, "etl: fixture `-`: EOF while parsing a value at line 1 column 0\n");
    assert!(outcome.code == Some(1) && catalogue.rows().is_empty(), "{outcome}");
}

#[test]
fn a_file_may_be_larger_than_the_memory() {
    let catalogue = Catalogue::new("fixture_memory");
    let mut command = Command::new("sh");
    // In kilobytes: what the process may address at all, its code and libraries included.
    command
        .args(["-c", "ulimit -v 25000 && exec \"$@\"", "sh", env!("CARGO_BIN_EXE_etl")])
        .args(["load-fixture", "-", "--database-url", &catalogue.database.url()])
        .env_clear();

    let film = json!({"title": "Film", "description": "A film. ".repeat(5_000)});
    let outcome = feed(command, |stdin| {
        let mut stdin = io::BufWriter::new(stdin);
        for number in 0..750 {
            let start = if number == 0 { '[' } else { ',' };
            write!(stdin, "{start}{}", object("movies.filmwork", &key(number), film.clone()))?;
        }
        stdin.write_all(b"]")
    });
    let said = "loaded 750 rows from 1 file: 750 film_work (750 written, 0 already so)\n";
    assert!(outcome.stdout == said, "{outcome}");
}

#[test]
fn two_loads_at_once_wait_for_each_other() {
    let catalogue = Catalogue::new("fixture_two");
    let film = |number| {
        object("movies.filmwork", &key(number), json!({"title": format!("Film {number}")}))
    };
    let films: Vec<_> = (0..2_000).map(film).collect();
    catalogue.write("up.json", json!(films).to_string());
    catalogue.write("down.json", json!(films.iter().rev().collect::<Vec<_>>()).to_string());
    let outcomes: Vec<_> = thread::scope(|scope| {
        let loads = ["up.json", "down.json", "up.json", "down.json"]
            .map(|file| scope.spawn(|| catalogue.load(&[file])));
        loads.into_iter().map(|load| load.join().unwrap()).collect()
    });
    for written in ["(2,000 written, 0 already so)\n", "(0 written, 2,000 already so)\n"] {
        let loads = outcomes.iter().filter(|outcome| outcome.stdout.ends_with(written)).count();
        assert_eq!(loads, if written.starts_with("(0") { 3 } else { 1 }, "{outcomes:?}");
    }
}

/// Runs a command with what `write` gives it on its standard input.
fn feed(mut command: Command, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Outcome {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("start the command");
    let mut stdin = child.stdin.take().expect("a pipe");
    // A command that has failed does not read on; what it says is what matters.
    let written = write(&mut stdin);
    drop(stdin);
    let outcome = Outcome::from(child.wait_with_output().expect("wait for the command"));
    assert!(written.is_ok() || outcome.code != Some(0), "{written:?}: {outcome}");
    outcome
}
