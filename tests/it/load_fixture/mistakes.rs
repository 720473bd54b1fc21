//! What is refused: one line, exit code 1, and the catalogue is as it was.

use serde_json::{Value, json};

use super::{Catalogue, GENRE_LINK, LUCAS, STAR_TREK, STAR_WARS, key, object, star_wars};
use crate::support::command::fail;

const FILE: &str = "fixture `movies.json`";

/// Changes a field of one object of the fixture, or takes it away, and loads it.
#[track_caller]
fn check_field(
    catalogue: &Catalogue,
    index: usize,
    field: &str,
    value: Option<Value>,
    expected: &str,
) {
    let mut fixture = star_wars();
    let fields = fixture[index]["fields"].as_object_mut().expect("an object");
    fields.remove(field);
    fields.extend(value.map(|value| (field.to_owned(), value)));
    let (model, pk) = (fixture[index]["model"].as_str(), fixture[index]["pk"].as_str());
    let subject = format!("{} {}", model.expect("a model"), pk.expect("a key"));
    let place = format!("{FILE}, object {}, {subject}", index + 1);
    catalogue.check_refused(fixture.to_string(), &format!("{place}: {expected}"));
}

#[test]
fn a_field_that_is_missing_or_wrong_is_named() {
    let catalogue = Catalogue::new("fixture_fields");
    let check =
        |index, field, value, expected| check_field(&catalogue, index, field, value, expected);
    check(2, "title", None, "field `title` is missing");
    check(2, "title", Some(json!(1977)), "field `title` is not text");
    let zero = "field `title` contains U+0000, which PostgreSQL cannot store";
    check(2, "title", Some(json!("\0")), zero);
    check(2, "rating", Some(json!("high")), "field `rating` is not a number");
    check(3, "name", Some(json!(null)), "field `name` is null");
    check(4, "full_name", None, "field `full_name` is missing");
    check(1, "role", None, "field `role` is missing");
    check(0, "genre", None, "field `genre` is missing");
    check(0, "film_work", Some(json!(7)), "field `film_work` is not a UUID");
}

#[test]
fn a_link_to_nowhere_is_named() {
    let catalogue = Catalogue::new("fixture_nowhere");
    for (index, end) in [(0, "genre"), (0, "film_work"), (1, "person"), (1, "film_work")] {
        check_field(&catalogue, index, end, Some(json!(STAR_TREK)), &leads_nowhere(end));
    }
}

#[test]
fn of_many_links_to_nowhere_the_first_is_named() {
    let catalogue = Catalogue::new("fixture_nowheres");
    let person_link = |number, film_work, person| {
        let fields = json!({"film_work": film_work, "person": person, "role": "actor"});
        object("movies.filmworkperson", &key(number), fields)
    };
    let genre_link = json!({"film_work": STAR_TREK, "genre": STAR_TREK});
    let mut fixture = star_wars();
    fixture.as_array_mut().unwrap().extend([
        person_link(9, STAR_WARS, STAR_TREK),
        person_link(8, STAR_TREK, LUCAS),
        object("movies.genrefilmwork", GENRE_LINK, genre_link),
    ]);
    let place = format!("{FILE}, object 6, movies.filmworkperson {}", key(9));
    catalogue.check_refused(fixture.to_string(), &format!("{place}: {}", leads_nowhere("person")));
}

fn leads_nowhere(end: &str) -> String {
    format!("field `{end}` is {STAR_TREK}, which is neither in the fixture nor in the catalogue")
}

#[test]
fn broken_json_is_named_with_its_place() {
    let catalogue = Catalogue::new("fixture_json");
    let whole = star_wars().to_string();
    let end = whole.len() - 1;
    let check =
        |json: &[u8], expected: &str| catalogue.check_refused(json, &format!("{FILE}{expected}"));
    check(
        &whole.as_bytes()[..end],
        &format!(", object 6: EOF while parsing a list at line 1 column {end}"),
    );
    check(format!("{whole}\n]").as_bytes(), ": trailing characters at line 2 column 1");
    check(
        b"{}",
        ": invalid type: map, expected an array of objects, as Django's dumpdata writes it \
         at line 1 column 1",
    );
    check(b"", ": EOF while parsing a value at line 1 column 0");
    check(b"[{\"model\": \"\xFF\"}]", ", object 1: invalid unicode code point at line 1 column 13");
    check(br#"[{"fields": {}}]"#, ", object 1: field `model` is missing");
    check(
        br#"[{"model": "movies.genre", "pk": 5, "fields": {"name": "Drama"}}]"#,
        ", object 1, movies.genre 5: field `pk` is not a UUID",
    );
}

#[test]
fn what_postgresql_refuses_is_named() {
    let catalogue = Catalogue::new("fixture_refused");
    catalogue
        .database
        .client()
        .batch_execute(
            "ALTER TABLE content.film_work ALTER COLUMN title TYPE varchar(8);
             ALTER TABLE content.genre ADD UNIQUE (name);
             ALTER TABLE content.person_film_work ADD CHECK (role <> 'director')",
        )
        .unwrap();
    let too_long = "value too long for type character varying(8)";
    catalogue.check_refused(
        star_wars().to_string(),
        &format!(
            "{FILE}, object 3, movies.filmwork {STAR_WARS}: \
             could not store a row in `content.film_work`: {too_long}"
        ),
    );

    let mut fixture = star_wars();
    fixture[2]["fields"]["title"] = json!("Star");
    let again = object("movies.genre", STAR_TREK, json!({"name": "Sci-Fi"}));
    fixture.as_array_mut().unwrap().push(again);
    catalogue.check_refused(
        fixture.to_string(),
        "could not store a row in `content.genre` (Key (name)=(Sci-Fi) already exists.): \
         duplicate key value violates unique constraint \"genre_name_key\"",
    );

    // The last table, when all others have been written.
    fixture.as_array_mut().unwrap().pop();
    catalogue.write("movies.json", fixture.to_string());
    let outcome = catalogue.load(&["movies.json"]);
    let refused = "etl: could not store a row in `content.person_film_work` (";
    assert!(outcome.code == Some(1) && outcome.stderr.starts_with(refused), "{outcome}");
    assert!(catalogue.rows().is_empty());
}

#[test]
fn the_catalogue_must_be_there() {
    let catalogue = Catalogue::empty("fixture_no_catalogue");
    catalogue.write("movies.json", star_wars().to_string());
    let outcome = catalogue.load(&["movies.json"]);
    assert_eq!(
        outcome.stderr,
        "etl: the catalogue's tables are not there: run `etl migrate` first \
         (or let your application create them)\n"
    );
    assert_eq!(outcome.code, Some(1));
}

#[test]
fn a_file_that_is_not_there_is_reported_before_any_server_is_asked() {
    let stderr =
        fail(&["load-fixture", "nowhere.json", "--database-url", "postgres://127.0.0.1:1/x"], 1);
    assert_eq!(
        stderr,
        "etl: could not read fixture `nowhere.json`: No such file or directory (os error 2)\n"
    );
}
