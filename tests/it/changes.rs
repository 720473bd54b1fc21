//! Every kind of change reaches the index: the documents concerned are sent again, no others, and
//! nothing is sent twice. On the catalogue that `etl` makes, and on those that users have.

use std::collections::BTreeSet;

use uuid::Uuid;

use crate::support::world::World;

/// `#7` stands for the id of film, person, genre or link number 7.
fn id_of(number: u32) -> Uuid {
    format!("00000000-0000-4000-8000-{number:012}").parse().unwrap()
}

/// Puts ids into SQL.
fn with_ids(sql: &str) -> String {
    let mut parts = sql.split('#');
    let first = parts.next().unwrap_or_default().to_owned();
    let rest = parts.map(|part| {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        format!("'{}'{}", id_of(part[..end].parse().unwrap()), &part[end..])
    });
    std::iter::once(first).chain(rest).collect()
}

/// Films 1 to 5, persons 11 to 14, genres 21 to 23, links of persons 31 to 36, of genres 41 to 44.
const ROWS: &str = "
    INSERT INTO content.film_work (id, title, description, rating, type, created, modified) VALUES
        (#1, 'Alpha', 'The first', 8.1, 'movie', now(), now()),
        (#2, 'Beta', NULL, NULL, 'movie', now(), now()),
        (#3, 'Гамма', 'Без никого', 5, 'movie', now(), now()),
        (#4, 'Delta', '', 0, 'movie', now(), now()),
        (#5, 'Epsilon', 'The last', 10, 'movie', now(), now());
    INSERT INTO content.person (id, full_name, created, modified) VALUES
        (#11, 'Ann', now(), now()), (#12, 'Bob', now(), now()),
        (#13, 'Cid', now(), now()), (#14, 'Nobody', now(), now());
    INSERT INTO content.genre (id, name, created, modified) VALUES
        (#21, 'Action', now(), now()), (#22, 'Drama', now(), now()), (#23, 'Empty', now(), now());
    INSERT INTO content.person_film_work (id, film_work_id, person_id, role, created) VALUES
        (#31, #1, #11, 'actor', now()), (#32, #1, #11, 'writer', now()),
        (#33, #1, #12, 'director', now()), (#34, #2, #13, 'actor', now()),
        (#35, #2, #11, 'actor', now()), (#36, #4, #12, 'producer', now());
    INSERT INTO content.genre_film_work (id, film_work_id, genre_id, created) VALUES
        (#41, #1, #21, now()), (#42, #2, #21, now()), (#43, #2, #22, now()), (#44, #4, #22, now());";

/// A change, and the documents that it concerns, of whatever kind.
struct Change(&'static str, &'static [u32]);

/// What can be done to any catalogue, one after the other.
const CHANGES: &[Change] = &[
    // Films.
    Change("INSERT INTO content.film_work (id, title, type, created, modified)
            VALUES (#6, 'Zeta', 'movie', now(), now())", &[6]),
    Change("UPDATE content.film_work SET title = 'Alpha II', modified = now() WHERE id = #1", &[1]),
    Change("UPDATE content.film_work SET description = NULL WHERE id = #1", &[1]),
    Change("UPDATE content.film_work SET rating = 'NaN' WHERE id = #2", &[2]),
    Change("UPDATE content.film_work SET title = title WHERE id = #3", &[3]),
    Change("BEGIN; UPDATE content.film_work SET title = 'lost' WHERE id = #3; ROLLBACK", &[]),
    Change("UPDATE content.film_work SET indexed_at = NULL WHERE id IN (#3, #4)", &[3, 4]),
    // Clocks that cannot be trusted.
    Change("UPDATE content.film_work SET title = 'future', modified = now() + interval '90 years' WHERE id = #4", &[4]),
    Change("UPDATE content.film_work SET title = 'now', modified = now() WHERE id = #4", &[4]),
    Change("UPDATE content.film_work SET title = 'past', modified = '1970-01-01' WHERE id = #4", &[4]),
    Change("UPDATE content.film_work SET title = 'endless', modified = 'infinity' WHERE id = #4", &[4]),
    Change("UPDATE content.film_work SET title = 'now again', modified = now() WHERE id = #4", &[4]),
    // Persons and genres.
    Change("UPDATE content.person SET full_name = 'Anna' WHERE id = #11", &[1, 2, 11]),
    Change("UPDATE content.person SET full_name = 'Nobody at all' WHERE id = #14", &[14]),
    Change("UPDATE content.genre SET name = 'Боевик', modified = now() WHERE id = #21", &[1, 2, 21]),
    Change("INSERT INTO content.person (id, full_name, created, modified) VALUES (#15, 'Eve', now(), now())", &[15]),
    Change("UPDATE content.person SET full_name = full_name WHERE id = #12", &[1, 4, 12]),
    Change("UPDATE content.genre SET description = 'Tears' WHERE id = #22", &[2, 4, 22]),
    Change("BEGIN; UPDATE content.person SET full_name = 'lost'; UPDATE content.genre SET name = 'lost'; ROLLBACK", &[]),
    Change("UPDATE content.person SET indexed_at = NULL WHERE id = #14", &[14]),
    Change("UPDATE content.genre SET indexed_at = NULL WHERE id = #23", &[23]),
    Change("UPDATE content.person SET full_name = 'future', modified = now() + interval '90 years' WHERE id = #13", &[2, 13]),
    Change("UPDATE content.person SET full_name = 'now', modified = now() WHERE id = #13", &[2, 13]),
    Change("UPDATE content.genre SET name = 'past', modified = '1970-01-01' WHERE id = #22", &[2, 4, 22]),
    Change("UPDATE content.genre SET name = 'endless', modified = 'infinity' WHERE id = #22", &[2, 4, 22]),
    Change("UPDATE content.genre SET name = 'Drama', modified = now() WHERE id = #22", &[2, 4, 22]),
    Change("INSERT INTO content.person (id, full_name, created, modified) VALUES (#17, 'Fay', now(), now());
            INSERT INTO content.genre (id, name, created, modified) VALUES (#24, 'Noir', now(), now())", &[17, 24]),
    Change("DELETE FROM content.person WHERE id = #17; DELETE FROM content.genre WHERE id = #24", &[17, 24]),
    Change("INSERT INTO content.person (id, full_name, created, modified) VALUES (#17, 'Fay is back', now(), now());
            INSERT INTO content.genre (id, name, created, modified) VALUES (#24, 'Noir is back', now(), now())", &[17, 24]),
    Change("BEGIN; DELETE FROM content.person WHERE id = #17; DELETE FROM content.genre WHERE id = #24;
            INSERT INTO content.person (id, full_name, created, modified) VALUES (#17, 'Fay at once', now(), now());
            INSERT INTO content.genre (id, name, created, modified) VALUES (#24, 'Noir at once', now(), now()); COMMIT", &[17, 24]),
    Change("UPDATE content.person SET id = #18 WHERE id = #17; UPDATE content.genre SET id = #25 WHERE id = #24", &[17, 18, 24, 25]),
    Change("DELETE FROM content.person WHERE id = #18; DELETE FROM content.genre WHERE id = #25", &[18, 25]),
    // Links.
    Change("INSERT INTO content.person_film_work (id, film_work_id, person_id, role, created)
            VALUES (#37, #5, #15, 'actor', now()), (#38, #5, #11, 'director', now())", &[5, 11, 15]),
    Change("UPDATE content.person_film_work SET role = 'writer' WHERE id = #37", &[5, 15]),
    Change("UPDATE content.person_film_work SET film_work_id = #3 WHERE id = #37", &[3, 5, 15]),
    Change("UPDATE content.person_film_work SET person_id = #12 WHERE id = #37", &[3, 12, 15]),
    Change("DELETE FROM content.person_film_work WHERE id = #37", &[3, 12]),
    Change("INSERT INTO content.genre_film_work (id, film_work_id, genre_id, created)
            VALUES (#45, #5, #22, now())", &[5]),
    Change("UPDATE content.genre_film_work SET genre_id = #23 WHERE id = #45", &[5]),
    Change("DELETE FROM content.genre_film_work WHERE id = #45", &[5]),
    Change("BEGIN;
            INSERT INTO content.genre_film_work (id, film_work_id, genre_id, created) VALUES (#46, #5, #23, now());
            DELETE FROM content.genre_film_work WHERE id = #46;
            COMMIT", &[5]),
    // Deletions.
    Change("DELETE FROM content.film_work WHERE id = #6", &[6]),
    Change("INSERT INTO content.film_work (id, title, type, created, modified)
            VALUES (#6, 'Zeta is back', 'movie', now(), now())", &[6]),
    Change("BEGIN;
            DELETE FROM content.film_work WHERE id = #6;
            INSERT INTO content.film_work (id, title, type, created, modified)
            VALUES (#6, 'Zeta at once', 'movie', now(), now());
            COMMIT", &[6]),
    Change("UPDATE content.film_work SET id = #7 WHERE id = #6", &[6, 7]),
    Change("DELETE FROM content.film_work WHERE id = #7", &[7]),
    Change("DELETE FROM content.person WHERE id = #14", &[14]),
    // Many at once.
    Change("INSERT INTO content.film_work (id, title, type, created, modified)
            SELECT ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'Film ' || n, 'movie', now(), now()
            FROM generate_series(1001, 2000) AS n", MANY),
    Change("UPDATE content.film_work SET modified = '2026-01-01', description = 'alike' WHERE title LIKE 'Film %'", MANY),
    Change("INSERT INTO content.genre_film_work (id, film_work_id, genre_id, created)
            SELECT ('00000000-0000-4000-8001-' || lpad(n::text, 12, '0'))::uuid,
                ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, #23, now()
            FROM generate_series(1001, 2000) AS n", MANY),
    Change("UPDATE content.genre SET name = 'Full' WHERE id = #23", MANY_AND_THEIR_GENRE),
    Change("DELETE FROM content.genre_film_work WHERE genre_id = #23", MANY),
    Change("DELETE FROM content.film_work WHERE title LIKE 'Film %'", MANY),
];

/// The thousand films of the last changes.
const MANY: &[u32] = MANY_AND_THEIR_GENRE.split_at(1000).0;
const MANY_AND_THEIR_GENRE: &[u32] = &{
    let mut ids = [23; 1001];
    let mut n = 0;
    while n < 1000 {
        ids[n as usize] = 1001 + n;
        n += 1;
    }
    ids
};

/// Where the keys of links cascade.
const CASCADING: &[Change] = &[
    Change("DELETE FROM content.person WHERE id = #13", &[2, 13]),
    Change("DELETE FROM content.genre WHERE id = #21", &[1, 2, 21]),
    Change("DELETE FROM content.film_work WHERE id = #2", &[2, 11]),
    Change("TRUNCATE content.genre_film_work", &[1, 3, 4, 5]),
    Change("TRUNCATE content.person CASCADE", &[1, 3, 4, 5, 11, 12, 15]),
    Change("TRUNCATE content.film_work CASCADE", &[1, 3, 4, 5]),
    Change(
        "BEGIN; INSERT INTO content.film_work (id, title, type, created, modified)
            VALUES (#1, 'before', 'movie', now(), now()); TRUNCATE content.film_work CASCADE;
            INSERT INTO content.film_work (id, title, type, created, modified)
            VALUES (#8, 'after', 'movie', now(), now()); COMMIT",
        &[8],
    ),
];

/// Where they do not: the links go first.
const RESTRICTING: &[Change] = &[
    Change(
        "DELETE FROM content.person_film_work WHERE person_id = #13;
            DELETE FROM content.person WHERE id = #13",
        &[2, 13],
    ),
    Change(
        "BEGIN; DELETE FROM content.genre_film_work WHERE genre_id = #21;
            DELETE FROM content.genre WHERE id = #21; COMMIT",
        &[1, 2, 21],
    ),
    Change("TRUNCATE content.person_film_work", &[1, 2, 3, 4, 5, 11, 12, 15]),
    Change(
        "TRUNCATE content.film_work, content.genre_film_work, content.person_film_work",
        &[1, 2, 3, 4, 5, 11, 12, 15],
    ),
];

/// Where there are none: links dangle, and come before what they link to.
const DANGLING: &[Change] = &[
    Change("DELETE FROM content.person WHERE id = #13", &[2, 13]),
    Change("INSERT INTO content.person (id, full_name) VALUES (#13, 'Cid is back')", &[2, 13]),
    Change("DELETE FROM content.genre WHERE id = #21", &[1, 2, 21]),
    Change("UPDATE content.genre SET id = #21 WHERE id = #22", &[1, 2, 4, 21, 22]),
    Change(
        "INSERT INTO content.person_film_work (id, film_work_id, person_id, role)
            VALUES (#50, #9, #16, 'actor'), (#51, #9, #16, 'actor'), (#52, NULL, #16, 'actor')",
        &[],
    ),
    Change("INSERT INTO content.person (id, full_name) VALUES (#16, 'Early')", &[16]),
    Change("INSERT INTO content.film_work (id, title) VALUES (#9, 'Late')", &[9, 16]),
    Change("DELETE FROM content.person_film_work WHERE id = #51", &[9, 16]),
    Change("DELETE FROM content.film_work WHERE id = #9", &[9, 16]),
    Change("TRUNCATE content.person", &[1, 2, 4, 5, 11, 12, 13, 15, 16]),
    Change("TRUNCATE content.genre", &[1, 2, 4, 21, 23]),
    Change("TRUNCATE content.film_work", &[1, 2, 3, 4, 5]),
];

/// A catalogue as Django makes it, with what users have added: keys without cascade, text columns with
/// a limit, a numeric rating, a json and a generated column, a trigger that rewrites the title, and one
/// that keeps `modified` as the moddatetime extension does.
const DJANGO: &str = "
    CREATE SCHEMA content;
    CREATE TABLE content.film_work (
        id uuid PRIMARY KEY, title varchar(255) NOT NULL, description text, creation_date date,
        rating numeric(4, 1), type varchar(20) NOT NULL, created timestamptz NOT NULL,
        modified timestamptz NOT NULL, extra json, shout text GENERATED ALWAYS AS (upper(title)) STORED);
    CREATE TABLE content.genre (
        id uuid PRIMARY KEY, name varchar(255) NOT NULL, description text,
        created timestamptz NOT NULL, modified timestamptz NOT NULL);
    CREATE TABLE content.person (
        id uuid PRIMARY KEY, full_name varchar(255) NOT NULL,
        created timestamptz NOT NULL, modified timestamptz NOT NULL);
    CREATE TABLE content.genre_film_work (
        id uuid PRIMARY KEY, genre_id uuid NOT NULL REFERENCES content.genre DEFERRABLE INITIALLY DEFERRED,
        film_work_id uuid NOT NULL REFERENCES content.film_work DEFERRABLE INITIALLY DEFERRED,
        created timestamptz NOT NULL);
    CREATE TABLE content.person_film_work (
        id uuid PRIMARY KEY, person_id uuid NOT NULL REFERENCES content.person DEFERRABLE INITIALLY DEFERRED,
        film_work_id uuid NOT NULL REFERENCES content.film_work DEFERRABLE INITIALLY DEFERRED,
        role varchar(20) NOT NULL, created timestamptz NOT NULL);
    CREATE FUNCTION content.rewrite_title() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN NEW.title := replace(NEW.title, 'Alpha', 'Альфа'); RETURN NEW; END $$;
    CREATE TRIGGER rewrite_title BEFORE INSERT OR UPDATE ON content.film_work
        FOR EACH ROW EXECUTE FUNCTION content.rewrite_title();
    CREATE FUNCTION content.keep_modified() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN NEW.modified := now(); RETURN NEW; END $$;
    CREATE TRIGGER zz_modified BEFORE UPDATE ON content.film_work
        FOR EACH ROW EXECUTE FUNCTION content.keep_modified();
    CREATE TRIGGER zz_modified BEFORE UPDATE ON content.person
        FOR EACH ROW EXECUTE FUNCTION content.keep_modified();";

/// A catalogue without any keys between its tables, and with next to nothing required.
const LOOSE: &str = "
    CREATE SCHEMA content;
    CREATE TYPE content.role AS ENUM ('actor', 'writer', 'director', 'producer');
    CREATE TABLE content.film_work (
        id uuid PRIMARY KEY, title text, description text, creation_date date, rating real, type text,
        created timestamptz, modified timestamptz);
    CREATE TABLE content.genre (
        id uuid PRIMARY KEY, name text, description text, created timestamptz, modified timestamptz);
    CREATE TABLE content.person (
        id uuid PRIMARY KEY, full_name text, created timestamptz, modified timestamptz);
    CREATE TABLE content.genre_film_work (
        id uuid, genre_id uuid, film_work_id uuid, created timestamptz);
    CREATE TABLE content.person_film_work (
        id uuid, person_id uuid, film_work_id uuid, role content.role, created timestamptz);";

#[test]
fn every_change_follows_on_the_catalogue_that_etl_makes() {
    let mut world = World::with_all_kinds("changes_own", "");
    world.sql(&with_ids(ROWS));
    check_changes(&mut world, &[CHANGES, CASCADING]);
}

#[test]
fn every_change_follows_on_a_catalogue_that_django_made() {
    let mut world = World::with_all_kinds("changes_django", DJANGO);
    world.sql(&with_ids(ROWS));
    check_changes(&mut world, &[CHANGES, RESTRICTING]);
}

#[test]
fn every_change_follows_without_keys_between_the_tables() {
    let mut world = World::with_all_kinds("changes_loose", LOOSE);
    world.sql(&with_ids(ROWS));
    check_changes(&mut world, &[CHANGES, DANGLING]);
}

#[test]
fn a_migration_of_the_users_neither_fails_nor_stops_the_sync() {
    let mut world = World::with_all_kinds("changes_alter", DJANGO);
    world.sql(&with_ids(ROWS));
    let running = world.spawn(&["start"]);
    world.wait_in_step();
    world.sql(&with_ids(
        "ALTER TABLE content.film_work DROP COLUMN shout;
         ALTER TABLE content.film_work ALTER title TYPE varchar(300);
         ALTER TABLE content.film_work DROP COLUMN extra;
         ALTER TABLE content.person ALTER full_name TYPE text;
         ALTER TABLE content.person_film_work ALTER role TYPE text;
         ALTER TABLE content.film_work ADD COLUMN certificate text;
         UPDATE content.film_work SET title = 'after the migration' WHERE id = #1;
         UPDATE content.person SET full_name = 'after it, too' WHERE id = #11",
    ));
    world.wait_in_step();
    let outcome = running.end();
    assert!(!outcome.stderr.contains("WARN") && !outcome.stderr.contains("ERROR"), "{outcome}");
    check_changes(&mut world, &[CHANGES, RESTRICTING]);
}

/// Makes one change after the other. After each the index equals what the database says, only the
/// documents concerned were sent again, and a further pass sends nothing.
#[track_caller]
fn check_changes(world: &mut World, changes: &[&[Change]]) {
    world.sync();
    world.check_in_step();
    for Change(sql, concerned) in changes.iter().copied().flatten() {
        let before = world.documents();
        world.sql(&with_ids(sql));
        world.sync();
        if let Some(difference) = world.difference() {
            panic!("after {sql}\n{difference}");
        }
        let after = world.documents();
        let sent: BTreeSet<Uuid> = before
            .keys()
            .chain(after.keys())
            .filter(|id| before.get(id).map(|d| d.seq_no) != after.get(id).map(|d| d.seq_no))
            .copied()
            .collect();
        let concerned: BTreeSet<Uuid> = concerned.iter().map(|n| id_of(*n)).collect();
        assert!(sent == concerned, "after {sql}\nsent {sent:?}\ninstead of {concerned:?}");
        assert_eq!(world.sync(), 0, "sent again after {sql}");
    }
}
