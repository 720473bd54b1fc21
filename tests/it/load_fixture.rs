//! `etl load-fixture`: what ends up in the catalogue, and what does not.

mod files;
mod mistakes;
mod rows;

use std::path::PathBuf;
use std::{env, fs, process};

use postgres::Client;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::command::{Outcome, etl, run};
use crate::support::database::Database;

const STAR_WARS: &str = "3d825f60-9fff-4dfe-b294-1a45fa1e115d";
const STAR_TREK: &str = "57beb3fd-b1c9-4f8a-9c06-2da13f95251c";
const SCI_FI: &str = "6c162475-c7ed-4461-9184-001ef3d9f26e";
const LUCAS: &str = "a5a8f573-3cee-4ccc-8a2b-91cb9f55250a";
const GENRE_LINK: &str = "00000000-0000-4000-8000-000000000001";
const PERSON_LINK: &str = "00000000-0000-4000-8000-000000000002";

/// A migrated database, and a folder for fixtures.
struct Catalogue {
    database: Database,
    folder: PathBuf,
}

impl Catalogue {
    fn new(name: &str) -> Self {
        let catalogue = Self::empty(name);
        catalogue.database.migrate();
        catalogue
    }

    /// Without any tables.
    fn empty(name: &str) -> Self {
        let folder = env::temp_dir().join(format!("etl_{name}_{}", process::id()));
        fs::create_dir_all(&folder).expect("create a folder");
        Self { database: Database::new(name), folder }
    }

    fn write(&self, file: &str, content: impl AsRef<[u8]>) {
        fs::write(self.folder.join(file), content).expect("write a fixture");
    }

    /// Runs `etl load-fixture` in the folder.
    fn load(&self, files: &[&str]) -> Outcome {
        let mut command = etl(&["load-fixture", "--database-url", &self.database.url()]);
        command.args(files).current_dir(&self.folder);
        run(command)
    }

    /// Loads one fixture, and returns what was said about it.
    #[track_caller]
    fn load_json(&self, fixture: &Value) -> String {
        self.write("movies.json", fixture.to_string());
        let outcome = self.load(&["movies.json"]);
        assert!(outcome.code == Some(0) && outcome.stderr.is_empty(), "{outcome}");
        outcome.stdout
    }

    /// Loads a fixture that is wrong, and checks what is said and that nothing is loaded.
    #[track_caller]
    fn check_refused(&self, fixture: impl AsRef<[u8]>, expected: &str) {
        let before = self.rows();
        self.write("movies.json", fixture);
        let outcome = self.load(&["movies.json"]);
        let expected =
            Outcome { code: Some(1), stdout: String::new(), stderr: format!("etl: {expected}\n") };
        assert!(outcome == expected, "{outcome}\nexpected: {expected}");
        assert_eq!(self.rows(), before);
    }

    /// All rows of the catalogue, with our columns and with what says that they were written.
    fn rows(&self) -> Vec<String> {
        let mut client = self.database.client();
        ["film_work", "genre", "person", "genre_film_work", "person_film_work"]
            .iter()
            .flat_map(|table| {
                let row = format!("concat('{table} ', t.xmin, to_jsonb(t))");
                texts(&mut client, &format!("SELECT {row} FROM content.{table} t ORDER BY id"))
            })
            .collect()
    }
}

impl Drop for Catalogue {
    fn drop(&mut self) {
        if let Err(err) = fs::remove_dir_all(&self.folder) {
            eprintln!("could not remove {}: {err}", self.folder.display());
        }
    }
}

/// The first column of each row.
#[track_caller]
fn texts(client: &mut Client, sql: &str) -> Vec<String> {
    let rows = client.query(sql, &[]).expect("query the database");
    rows.iter().map(|row| row.get(0)).collect()
}

fn object(model: &str, pk: &str, fields: Value) -> Value {
    let mut object = json!({"model": model, "pk": pk});
    object["fields"] = fields;
    object
}

/// A film with everything, its genre, its director, and the links between them, the links first.
fn star_wars() -> Value {
    let created = "2021-06-16T20:14:09.415Z";
    let film_work = json!({
        "title": "Star Wars", "description": "A film.", "creation_date": "1977-05-25",
        "rating": 8.6, "type": "movie",
        "created": "2021-06-16T20:14:09.221838Z", "modified": "2021-06-16T20:14:09.221855Z",
    });
    let genre =
        json!({"name": "Sci-Fi", "description": null, "created": created, "modified": created});
    let person = json!({"full_name": "George Lucas", "created": created, "modified": created});
    let genre_link = json!({"film_work": STAR_WARS, "genre": SCI_FI, "created": created});
    let person_link = json!({
        "film_work": STAR_WARS, "person": LUCAS, "role": "director", "created": created,
    });
    json!([
        object("movies.genrefilmwork", GENRE_LINK, genre_link),
        object("movies.personfilmwork", PERSON_LINK, person_link),
        object("movies.filmwork", STAR_WARS, film_work),
        object("movies.genre", SCI_FI, genre),
        object("movies.person", LUCAS, person),
    ])
}

/// The same in the other spellings of this catalogue.
fn star_wars_spelt_otherwise() -> Value {
    let created = "2021-06-16 23:14:09.415+03:00";
    let film_work = json!({
        "title": "Star Wars", "description": "A film.", "creation_date": "1977-05-25",
        "imdb_rating": "8.60",
        "created_at": "2021-06-16T20:14:09.221838",
        "updated_at": "2021-06-16T20:14:09.221855+00:00",
    });
    let genre = json!({"name": "Sci-Fi", "created_at": created, "updated_at": created});
    let person = json!({"name": "George Lucas", "created_at": created, "updated_at": created});
    let genre_link = json!({"filmwork": STAR_WARS, "genre_id": SCI_FI, "created_at": created});
    let person_link = json!({
        "film_work_id": STAR_WARS, "person_id": LUCAS, "job": "director", "created_at": created,
    });
    json!([
        object("movies.FilmWorkGenre", GENRE_LINK, genre_link),
        object("movies.filmworkperson", PERSON_LINK, person_link),
        object("Movies.FilmWork", STAR_WARS, film_work),
        object("movies.genre", SCI_FI, genre),
        object("movies.person", LUCAS, person),
    ])
}

/// A key that is easy to tell from others.
fn key(number: u128) -> String {
    Uuid::from_u128(number).to_string()
}
