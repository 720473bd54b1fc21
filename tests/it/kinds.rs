//! Kinds of documents that are left out, and added later.

use std::thread;
use std::time::Duration;

use crate::support::world::{ALL_KINDS, World};

const ROWS: &str = "
    CREATE FUNCTION pg_temp.id(n bigint) RETURNS uuid LANGUAGE sql
        AS $$ SELECT ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid $$;
    INSERT INTO content.genre (id, name) SELECT pg_temp.id(n), 'Genre ' || n FROM generate_series(1, 3) AS n;
    INSERT INTO content.person (id, full_name) SELECT pg_temp.id(10 + n), 'Person ' || n FROM generate_series(1, 3) AS n;
    INSERT INTO content.film_work (id, title) SELECT pg_temp.id(20 + n), 'Film ' || n FROM generate_series(1, 3) AS n;
    INSERT INTO content.genre_film_work (id, genre_id, film_work_id)
        SELECT pg_temp.id(30 + n), pg_temp.id(n), pg_temp.id(20 + n) FROM generate_series(1, 3) AS n;
    INSERT INTO content.person_film_work (id, person_id, film_work_id, role)
        SELECT pg_temp.id(40 + n), pg_temp.id(10 + n), pg_temp.id(20 + n), 'actor' FROM generate_series(1, 3) AS n;";

/// Links come, move and go, and so do the rows that are linked.
const CHANGES: &str = "
    INSERT INTO content.person_film_work (id, person_id, film_work_id, role)
        VALUES (pg_temp.id(50), pg_temp.id(11), pg_temp.id(22), 'writer');
    UPDATE content.person_film_work SET person_id = pg_temp.id(12) WHERE id = pg_temp.id(50);
    DELETE FROM content.person_film_work WHERE id = pg_temp.id(50);
    INSERT INTO content.film_work (id, title) VALUES (pg_temp.id(60), 'Another');
    DELETE FROM content.genre_film_work WHERE film_work_id = pg_temp.id(21);
    DELETE FROM content.person_film_work WHERE film_work_id = pg_temp.id(21);
    DELETE FROM content.film_work WHERE id = pg_temp.id(21);
    DELETE FROM content.person WHERE id = pg_temp.id(11);
    DELETE FROM content.genre WHERE id = pg_temp.id(1);";

/// Another film of a person.
const LINK: &str = "INSERT INTO content.person_film_work (id, person_id, film_work_id, role)
    VALUES ('00000000-0000-4000-8000-000000000070', '00000000-0000-4000-8000-000000000011',
        '00000000-0000-4000-8000-000000000022', 'director')";

/// The entries of the outbox, each by its name and table.
fn entries(world: &mut World) -> Vec<String> {
    let sql = "SELECT DISTINCT op || ' ' || kind FROM etl.outbox ORDER BY 1";
    world.client.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

fn has_index(world: &mut World, table: &str) -> bool {
    let sql = "SELECT index_name IS NOT NULL FROM etl.state WHERE kind = $1";
    world.client.query_one(sql, &[&table]).unwrap().get(0)
}

#[test]
fn writers_note_nothing_for_a_kind_that_is_left_out() {
    let mut world = World::new("kinds_left_out");
    world.sql(ROWS);
    world.sync();
    world.sql(CHANGES);
    let noted = ["fan_out genre", "fan_out person", "tombstone film_work", "touch film_work"];
    assert_eq!(entries(&mut world), noted);
    world.sync();
    world.check_in_step();

    world.kinds = "genres";
    world.sql("UPDATE etl.state SET index_name = NULL; DELETE FROM etl.followed");
    world.succeed(&["init-es"]);
    world.sync();
    world.sql("DELETE FROM content.person_film_work; DELETE FROM content.genre_film_work; DELETE FROM content.genre");
    assert_eq!(entries(&mut world), ["tombstone genre"]);
    world.sync();
    world.check_in_step();
}

#[test]
fn a_kind_that_is_added_is_followed_from_then_on() {
    let mut world = World::new("kinds_added");
    world.sql(ROWS);
    world.sync();
    world.kinds = ALL_KINDS;
    world.succeed(&["init-es", "--kinds", "persons,genres"]);
    world.sync();
    world.check_in_step();
    world.sql(CHANGES);
    world.sync();
    world.check_in_step();
}

#[test]
fn a_link_of_a_transaction_that_began_before_a_kind_was_added_is_not_missed() {
    let mut world = World::new("kinds_open");
    world.sql(ROWS);
    world.sync();
    world.kinds = ALL_KINDS;
    world.succeed(&["init-es", "--kinds", "genres"]);
    let mut writer = world.database.client();
    let mut transaction = writer.transaction().unwrap();
    transaction.batch_execute(LINK).unwrap();

    let running = world.spawn(&["init-es", "--kinds", "persons"]);
    world.wait_for_row("SELECT FROM etl.followed WHERE kind = 'person'");
    // Did it not wait, the documents would be sent without the link.
    let is_ready = (0..50).any(|_| {
        thread::sleep(Duration::from_millis(100));
        has_index(&mut world, "person")
    });
    if is_ready {
        world.sync();
    }
    transaction.commit().unwrap();
    let outcome = running.wait();
    assert_eq!(outcome.code, Some(0), "{outcome}");
    world.sync();
    world.check_in_step();
    assert!(!is_ready);
}

#[test]
fn a_link_of_a_transaction_that_still_sees_what_was_there_before_is_not_missed() {
    let mut world = World::new("kinds_repeatable");
    world.sql(ROWS);
    world.sync();
    let mut writer = world.database.client();
    let level = postgres::IsolationLevel::RepeatableRead;
    let mut transaction = writer.build_transaction().isolation_level(level).start().unwrap();
    transaction.batch_execute("SELECT FROM etl.state").unwrap();

    world.kinds = ALL_KINDS;
    world.succeed(&["init-es", "--kinds", "persons,genres"]);
    world.sync();
    transaction.batch_execute(LINK).unwrap();
    transaction.commit().unwrap();
    world.sync();
    world.check_in_step();
}
