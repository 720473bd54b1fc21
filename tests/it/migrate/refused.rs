//! What is refused, before anything is changed.

use super::{DJANGO, load_definition, migrate, revert};
use crate::support::command::{etl, run};
use crate::support::database::Database;

/// Makes sure that a catalogue with this change is refused, with these reasons, and stays as it is.
#[track_caller]
fn check_not_followed(database: &Database, change: &str, expected: &[&str]) {
    let mut client = database.client();
    let sql =
        format!("DROP SCHEMA IF EXISTS content CASCADE; {DJANGO} DROP VIEW content.best; {change}");
    client.batch_execute(&sql).unwrap_or_else(|err| panic!("{change}: {err:?}"));
    let before = load_definition(&mut client);
    let outcome = run(etl(&["migrate", "--database-url", &database.url()]));
    assert_eq!(outcome.code, Some(1), "{change}\n{outcome}");
    let line = format!("etl: cannot follow this catalogue: {}\n", expected.join("; "));
    assert_eq!((&*outcome.stderr, &*outcome.stdout), (&*line, ""), "{change}\n{outcome}");
    assert_eq!(load_definition(&mut client), before, "{change}");
}

#[test]
fn columns_that_cannot_be_followed_are_refused_before_anything_is_changed() {
    let database = Database::new("refused_columns");
    let check = |change: &str, expected: &[&str]| check_not_followed(&database, change, expected);
    check(
        "ALTER TABLE content.film_work DROP COLUMN description",
        &["the column content.film_work.description is missing"],
    );
    check(
        "DROP TABLE content.person_film_work",
        &["the table content.person_film_work is missing"],
    );
    check(
        "ALTER TABLE content.film_work ALTER COLUMN modified TYPE timestamp",
        &[
            "content.film_work.modified is timestamp without time zone, but must be timestamp with time zone",
        ],
    );
    check(
        "ALTER TABLE content.film_work ALTER COLUMN rating TYPE text",
        &["content.film_work.rating is text, but must be a number"],
    );
    check(
        "ALTER TABLE content.person ALTER COLUMN full_name TYPE bytea USING NULL",
        &["content.person.full_name is bytea, but must be text"],
    );
    check(
        "ALTER TABLE content.genre_film_work ALTER COLUMN genre_id TYPE text",
        &["content.genre_film_work.genre_id is text, but must be uuid"],
    );
    check(
        "ALTER TABLE content.person DROP CONSTRAINT person_pkey",
        &["content.person has no primary key or unique index on id"],
    );
    check(
        "ALTER TABLE content.film_work DROP CONSTRAINT film_work_pkey;
         CREATE UNIQUE INDEX ON content.film_work (id) WHERE rating > 5;
         CREATE UNIQUE INDEX ON content.film_work (id, title)",
        &["content.film_work has no primary key or unique index on id"],
    );
}

#[test]
fn tables_that_cannot_be_followed_are_refused_before_anything_is_changed() {
    let database = Database::new("refused_tables");
    let check = |change: &str, expected: &[&str]| check_not_followed(&database, change, expected);
    check(
        "DROP TABLE content.genre;
         CREATE TABLE content.genre (id uuid PRIMARY KEY, name text, description text, modified timestamptz)
            PARTITION BY HASH (id)",
        &["content.genre is a partitioned table, whose triggers do not see every change"],
    );
    check(
        "CREATE TABLE content.series () INHERITS (content.film_work)",
        &[
            "content.film_work is a partition, or part of an inheritance, whose triggers do not see every change",
        ],
    );
    check(
        "CREATE TABLE content.human (id uuid); ALTER TABLE content.person INHERIT content.human",
        &[
            "content.person is a partition, or part of an inheritance, whose triggers do not see every change",
        ],
    );
    check(
        "DROP TABLE content.genre;
         CREATE VIEW content.genre AS SELECT md5('1')::uuid AS id, 'Drama'::text AS name, ''::text AS description, now() AS modified",
        &["content.genre is a view, whose triggers do not see every change"],
    );
    check(
        "DROP TABLE content.person;
         CREATE MATERIALIZED VIEW content.person AS SELECT md5('1')::uuid AS id, 'Ann'::text AS full_name, now() AS modified",
        &["content.person is a view, whose triggers do not see every change"],
    );
    check(
        "DROP TABLE content.genre;
         CREATE FOREIGN DATA WRAPPER elsewhere; CREATE SERVER elsewhere FOREIGN DATA WRAPPER elsewhere;
         CREATE FOREIGN TABLE content.genre (id uuid, name text, description text, modified timestamptz)
            SERVER elsewhere",
        &["content.genre is a foreign table, whose triggers do not see every change"],
    );
    check(
        "ALTER TABLE content.film_work ADD COLUMN indexed_at date",
        &["content.film_work has a column indexed_at, a name that etl needs for one of its own"],
    );
    check(
        "CREATE SCHEMA etl; CREATE TABLE etl.jobs (id integer)",
        &["there is a schema etl that another program made"],
    );
    check(
        "DROP SCHEMA etl CASCADE; ALTER TABLE content.film_work DROP COLUMN title CASCADE, DROP COLUMN modified;
         DROP TABLE content.genre_film_work",
        &[
            "the column content.film_work.title is missing",
            "the column content.film_work.modified is missing",
            "the table content.genre_film_work is missing",
        ],
    );
}

#[test]
fn types_that_hold_the_same_values_are_fine() {
    let database = Database::new("other_types");
    let mut client = database.client();
    for (column, types) in [
        ("film_work ALTER rating", &["double precision", "real", "numeric", "smallint"][..]),
        ("film_work ALTER title", &["text", "varchar(9)", "char(9)"]),
    ] {
        for name in types {
            let sql = format!(
                "DROP SCHEMA IF EXISTS content CASCADE; {DJANGO} DROP VIEW content.best;
                 ALTER TABLE content.film_work DROP COLUMN title_length;
                 ALTER TABLE content.{column} TYPE {name}"
            );
            client.batch_execute(&sql).unwrap();
            migrate(&database);
            revert(&database);
        }
    }
}
