//! What is in the catalogue afterwards, and what was written for it.

use serde_json::{Value, json};

use super::{
    Catalogue, GENRE_LINK, LUCAS, PERSON_LINK, SCI_FI, STAR_WARS, key, object, star_wars,
    star_wars_spelt_otherwise, texts,
};

#[test]
fn all_columns_arrive_whatever_the_order_of_the_rows() {
    let catalogue = Catalogue::new("fixture_columns");
    let said = catalogue.load_json(&star_wars());
    assert_eq!(
        said,
        "loaded 5 rows from 1 file: 1 genre, 1 person, 1 film_work, 1 genre_film_work, \
         1 person_film_work (5 written, 0 already so)\n"
    );

    let mut client = catalogue.database.client();
    client.batch_execute("SET timezone = 'UTC'").unwrap();
    let mut check = |table: &str, columns: &str, expected: &str| {
        let sql = format!("SELECT concat_ws('|', {columns}) FROM content.{table}");
        assert_eq!(texts(&mut client, &sql), [expected]);
    };
    check(
        "film_work",
        "id, title, description, creation_date, rating, type, created, modified",
        &format!(
            "{STAR_WARS}|Star Wars|A film.|1977-05-25|8.6|movie|2021-06-16 20:14:09.221838+00\
             |2021-06-16 20:14:09.221855+00"
        ),
    );
    let created = "2021-06-16 20:14:09.415+00";
    check(
        "genre",
        "id, name, description IS NULL, created, modified",
        &format!("{SCI_FI}|Sci-Fi|t|{created}|{created}"),
    );
    check(
        "person",
        "id, full_name, created, modified",
        &format!("{LUCAS}|George Lucas|{created}|{created}"),
    );
    check(
        "genre_film_work",
        "id, genre_id, film_work_id, created",
        &format!("{GENRE_LINK}|{SCI_FI}|{STAR_WARS}|{created}"),
    );
    check(
        "person_film_work",
        "id, person_id, film_work_id, role, created",
        &format!("{PERSON_LINK}|{LUCAS}|{STAR_WARS}|director|{created}"),
    );
}

#[test]
fn loading_a_file_twice_sends_nothing_to_the_engine() {
    let catalogue = Catalogue::new("fixture_twice");
    catalogue.load_json(&star_wars());
    check_nothing_is_written(&catalogue, &star_wars());
}

#[test]
fn all_spellings_mean_the_same_rows() {
    let catalogue = Catalogue::new("fixture_spellings");
    catalogue.load_json(&star_wars_spelt_otherwise());
    check_nothing_is_written(&catalogue, &star_wars());
    check_nothing_is_written(&catalogue, &star_wars_spelt_otherwise());
}

#[test]
fn rows_are_compared_as_the_columns_of_the_catalogue_store_them() {
    let catalogue = Catalogue::empty("fixture_types");
    let mut client = catalogue.database.client();
    client.batch_execute(include_str!("other_catalogue.sql")).unwrap();
    catalogue.database.migrate();

    let mut fixture = star_wars();
    fixture[2]["fields"]["rating"] = json!("8.649");
    fixture[2]["fields"]["title"] = json!("Star Wars             ");
    catalogue.load_json(&fixture);
    let row = "concat_ws('|', title, rating, type, created, file_path, length)";
    assert_eq!(
        texts(&mut client, &format!("SELECT {row} FROM content.film_work")),
        ["Star Wars   |8.6|movie|2021-06-16 20:14:09.221838|none|12"]
    );
    check_nothing_is_written(&catalogue, &fixture);
}

#[test]
fn only_rows_that_differ_are_written() {
    let catalogue = Catalogue::new("fixture_differ");
    catalogue.load_json(&star_wars());
    let before = catalogue.rows();

    let mut fixture = star_wars();
    fixture[1]["fields"]["role"] = json!("writer");
    fixture[2]["fields"]["rating"] = json!(null);
    let said = catalogue.load_json(&fixture);
    assert!(said.ends_with("(2 written, 3 already so)\n"), "{said}");

    let after = catalogue.rows();
    let written: Vec<_> = after
        .iter()
        .filter(|row| !before.contains(row))
        .filter_map(|row| row.split(' ').next())
        .collect();
    assert_eq!(written, ["film_work", "person_film_work"]);
    let mut client = catalogue.database.client();
    let rows = "SELECT concat(rating, role) FROM content.film_work, content.person_film_work";
    assert_eq!(texts(&mut client, rows), ["writer"]);
}

#[test]
fn a_date_that_is_absent_is_now_in_a_new_row_and_stays_in_an_old_one() {
    let catalogue = Catalogue::new("fixture_dates");
    catalogue.load_json(&star_wars());
    let mut fixture = star_wars();
    for object in fixture.as_array_mut().unwrap() {
        object["fields"]["created"] = json!(null);
        object["fields"].as_object_mut().unwrap().remove("modified");
    }
    check_nothing_is_written(&catalogue, &fixture);

    fixture[2]["fields"]["title"] = json!("A New Hope");
    catalogue.load_json(&fixture);
    let mut client = catalogue.database.client();
    let is_old =
        "created = '2021-06-16 20:14:09.221838Z' AND modified = '2021-06-16 20:14:09.221855Z'";
    let kept = format!("SELECT title FROM content.film_work WHERE {is_old}");
    assert_eq!(texts(&mut client, &kept), ["A New Hope"]);

    client
        .batch_execute("TRUNCATE content.film_work, content.genre, content.person CASCADE")
        .unwrap();
    catalogue.load_json(&fixture);
    let is_recent = "created BETWEEN now() - interval '1 minute' AND now()";
    let recent = ["film_work", "genre", "person", "genre_film_work", "person_film_work"]
        .map(|table| format!("SELECT '{table}' FROM content.{table} WHERE {is_recent}"));
    assert_eq!(texts(&mut client, &recent.join(" UNION ALL ")).len(), 5);
}

#[test]
fn a_film_may_lack_everything_but_its_title() {
    let catalogue = Catalogue::new("fixture_bare");
    catalogue.load_json(&json!([object("movies.filmwork", STAR_WARS, json!({"title": ""}))]));
    let mut client = catalogue.database.client();
    let row = "concat_ws('|', title, type, description, creation_date, rating)";
    assert_eq!(texts(&mut client, &format!("SELECT {row} FROM content.film_work")), ["|movie"]);
}

#[test]
fn repeated_links_are_skipped_where_the_catalogue_has_them_once() {
    let catalogue = Catalogue::new("fixture_repeated");
    let fixture = with_more_links();
    let said = catalogue.load_json(&fixture);
    assert!(said.contains(" 2 person_film_work (6 written, 0 already so)"), "{said}");
    assert!(said.ends_with("; skipped 2 repeated links\n"), "{said}");

    let before = catalogue.rows();
    let said = catalogue.load_json(&fixture);
    assert!(said.ends_with("(0 written, 6 already so); skipped 2 repeated links\n"), "{said}");
    assert_eq!(catalogue.rows(), before);
}

#[test]
fn repeated_links_are_loaded_where_the_catalogue_takes_them() {
    let catalogue = Catalogue::new("fixture_not_unique");
    let unique = "person_film_work_film_work_id_person_id_role_key";
    catalogue
        .database
        .client()
        .batch_execute(&format!("ALTER TABLE content.person_film_work DROP CONSTRAINT {unique}"))
        .unwrap();
    let said = catalogue.load_json(&with_more_links());
    assert!(said.ends_with(" 4 person_film_work (8 written, 0 already so)\n"), "{said}");
}

/// Adds two links that say again who the director is, and one that says something new.
fn with_more_links() -> Value {
    let link = |number, role| {
        let fields = json!({"film_work": STAR_WARS, "person": LUCAS, "role": role});
        object("movies.personfilmwork", &key(number), fields)
    };
    let mut fixture = star_wars();
    let links = [link(1, "director"), link(2, "director"), link(3, "writer")];
    fixture.as_array_mut().expect("an array").extend(links);
    fixture
}

/// Loads a fixture of five rows that is loaded already.
#[track_caller]
fn check_nothing_is_written(catalogue: &Catalogue, fixture: &Value) {
    let mut client = catalogue.database.client();
    client.batch_execute("DELETE FROM etl.outbox").expect("empty the outbox");
    let before = catalogue.rows();
    let said = catalogue.load_json(fixture);
    assert!(said.ends_with("(0 written, 5 already so)\n"), "{said}");
    assert_eq!(catalogue.rows(), before);
    assert!(texts(&mut client, "SELECT o::text FROM etl.outbox o").is_empty());
}
