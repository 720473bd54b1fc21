//! Truncated tables: what showed the lost rows is touched a chunk at a time.

use crate::support::world::World;

/// Three films and three persons with the same ids, all linked, so that an id is in two tables at every border.
const ROWS: &str = "
    INSERT INTO content.film_work (id, title) SELECT md5('row' || n)::uuid, 'Film ' || n FROM generate_series(1, 3) AS n;
    INSERT INTO content.person (id, full_name) SELECT id, title FROM content.film_work;
    INSERT INTO content.person_film_work (id, person_id, film_work_id, role)
        SELECT gen_random_uuid(), id, id, 'actor' FROM content.film_work;";

fn world(name: &str) -> World {
    let mut world = World::with_all_kinds(name, "");
    world.sql(ROWS);
    world.sync();
    world
}

/// Takes the first marker a step of so many rows further. Returns how many were looked at.
fn step(world: &mut World, row_limit: i32) -> i64 {
    let sql = "SELECT etl.expand_sweep(epoch, (SELECT min(id) FROM etl.outbox WHERE op = 'sweep'), $1) FROM etl.term";
    world.client.query_one(sql, &[&row_limit]).unwrap().get(0)
}

/// How many entries of this name there are.
fn count(world: &mut World, op: &str) -> i64 {
    world.client.query_one("SELECT count(*) FROM etl.outbox WHERE op = $1", &[&op]).unwrap().get(0)
}

#[test]
fn a_truncated_link_table_touches_a_chunk_when_the_last_one_is_done() {
    let mut world = world("sweeps_links");
    world.sql("TRUNCATE content.person_film_work");
    // A film and the person of the same id.
    assert_eq!((step(&mut world, 1), count(&mut world, "touch_later")), (2, 2));
    assert_eq!(step(&mut world, 1), 0, "the last ones are not touched yet");
    for _ in 0..2 {
        world.sql("DELETE FROM etl.outbox WHERE op = 'touch_later'");
        assert_eq!((step(&mut world, 1), count(&mut world, "touch_later")), (2, 2));
    }
    world.sql("DELETE FROM etl.outbox WHERE op = 'touch_later'");
    assert_eq!((step(&mut world, 1), count(&mut world, "sweep")), (1, 0), "it is at the end");
}

#[test]
fn what_was_begun_is_ended_by_whoever_comes_next() {
    for (name, table) in [("links", "person_film_work"), ("films", "film_work CASCADE")] {
        let mut world = world(&format!("sweeps_next_{name}"));
        world.sql(&format!("TRUNCATE content.{table}"));
        assert_eq!(step(&mut world, 1), 2 - i64::from(name == "films"));
        world.sync();
        world.check_in_step();
        assert_eq!(count(&mut world, "sweep"), 0);
    }
}

#[test]
fn a_step_of_a_former_term_does_nothing() {
    let mut world = world("sweeps_term");
    world.sql("TRUNCATE content.person_film_work");
    let sql = "SELECT etl.expand_sweep(epoch - 1, (SELECT id FROM etl.outbox WHERE op = 'sweep'), 9) FROM etl.term";
    assert_eq!(world.client.query_one(sql, &[]).unwrap().get::<_, i64>(0), 0);
    assert_eq!((count(&mut world, "sweep"), count(&mut world, "touch_later")), (1, 0));
}
