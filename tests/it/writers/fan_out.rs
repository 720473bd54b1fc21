//! Renames of what many films are linked to: cheap for their writers, and no edit waits behind them.

use std::time::{Duration, Instant};

use postgres::Client;

use super::{kill, spawn_at_work, writer};
use crate::support::proxy::{Fault, Proxy};
use crate::support::wait::wait_until;
use crate::support::world::World;

/// How many films there are, if a test does not say. Those of a person or genre with fewer than 1,000 would
/// be touched at once.
const FILMS: u32 = 2_000;

/// Genre 1 and person 1 of all films, genre 2 of none.
const ROWS: &str = "
    INSERT INTO content.genre (id, name)
        VALUES (pg_temp.id(1), 'Many'), (pg_temp.id(2), 'None');
    INSERT INTO content.person (id, full_name) VALUES (pg_temp.id(1), 'Many');
    INSERT INTO content.film_work (id, title)
        SELECT pg_temp.id(n), 'Film ' || n FROM generate_series(1, $films) AS n;
    INSERT INTO content.genre_film_work (id, genre_id, film_work_id)
        SELECT pg_temp.id(n), pg_temp.id(1), pg_temp.id(n) FROM generate_series(1, $films) AS n;
    INSERT INTO content.person_film_work (id, person_id, film_work_id, role)
        SELECT pg_temp.id(n), pg_temp.id(1), pg_temp.id(n), 'actor'
            FROM generate_series(1, $films) AS n;";

fn catalogue(name: &str, films: u32) -> World {
    let mut world = World::new(name);
    world.client = writer(&world);
    world.sql(&ROWS.replace("$films", &films.to_string()));
    world.sync();
    world.check_in_step();
    world
}

fn rename(client: &mut Client, genre: i64, name: &str) {
    let sql = "UPDATE content.genre SET name = $2 WHERE id = pg_temp.id($1)";
    client.execute(sql, &[&genre, &name]).unwrap();
}

/// How many films are yet to be sent.
fn pending(client: &mut Client) -> i64 {
    let sql = "SELECT count(*) FROM content.film_work WHERE indexed_at IS NULL";
    client.query_one(sql, &[]).unwrap().get(0)
}

/// How many rows are yet to be fanned out, touched or sent.
fn left(client: &mut Client) -> i64 {
    let sql = "SELECT (SELECT count(*) FROM etl.outbox)
        + (SELECT count(*) FROM content.film_work WHERE indexed_at IS NULL)
        + (SELECT count(*) FROM content.person WHERE fanned_out_at IS NULL)
        + (SELECT count(*) FROM content.genre WHERE fanned_out_at IS NULL)";
    client.query_one(sql, &[]).unwrap().get(0)
}

#[test]
fn the_rename_of_a_genre_costs_its_writer_the_same_however_many_films_it_has() {
    let mut world = catalogue("writers_rename", 5_000);
    let mut median = |genre| {
        let mut times: Vec<Duration> = (0..25)
            .map(|round| {
                let started = Instant::now();
                rename(&mut world.client, genre, &format!("Renamed {round}"));
                started.elapsed()
            })
            .collect();
        times.sort_unstable();
        times[times.len() / 2]
    };
    let (none, many) = (median(2), median(1));
    let limit = Duration::from_millis(10) + none * 5;
    assert!(many < limit, "{many:?} for 5,000 films, {none:?} for none");
    world.sync();
    world.check_in_step();
}

#[test]
fn a_fan_out_that_is_killed_anywhere_is_ended_by_the_next_process() {
    let mut world = catalogue("writers_killed", FILMS);
    let mut in_between = 0;
    for round in 0..8 {
        rename(&mut world.client, 1, &format!("Renamed {round}"));
        let running = spawn_at_work(&mut world, &["start", "--batch-size", "50"]);
        std::thread::sleep(Duration::from_millis(fastrand::u64(0..400)));
        kill(running);
        // One is the genre alone.
        in_between += u32::from(left(&mut world.client) > 1);
        world.sync();
        world.check_in_step();
    }
    assert!(in_between > 0, "the test shows nothing: it was never killed in the middle");
}

#[test]
fn an_edit_does_not_wait_for_the_end_of_a_fan_out() {
    let mut world = catalogue("writers_edit", FILMS);
    let proxy = Proxy::new(&world.engine.url);
    proxy.plan(std::iter::repeat_n(Fault::SlowAnswer(Duration::from_millis(40)), 10_000));
    let small = ["start", "--batch-size", "10", "--elasticsearch-url", &proxy.url];
    let running = world.spawn(&small);
    rename(&mut world.client, 1, "Renamed");
    for film in [5, FILMS / 2, FILMS - 1] {
        // Before the first page of 1,000 touched films, an edit counts as one of them.
        wait_until("a page is sent", || (200..=990).contains(&pending(&mut world.client)));
        let edited = Instant::now();
        world.sql(&format!(
            "UPDATE content.film_work SET title = 'edited' WHERE id = pg_temp.id({film})"
        ));
        wait_until("the edit is in the index", || indexed_title(&world, film) == "edited");
        let took = edited.elapsed();
        assert!(took < Duration::from_secs(3), "an edit took {took:?}");
    }
    assert!(left(&mut world.client) > 100, "the test shows nothing: the fan-out was over");
    kill(running);
    world.sync();
    world.check_in_step();
}

#[test]
fn a_second_rename_during_the_fan_out_of_the_first_is_not_lost() {
    let mut world = catalogue("writers_twice", FILMS);
    let running = world.spawn(&["start", "--batch-size", "50"]);
    let mut in_between = 0;
    for round in 0..4 {
        let name = |second| format!("Name {round}.{second}");
        let sql = "UPDATE content.person SET full_name = $1 WHERE id = pg_temp.id(1)";
        world.client.execute(sql, &[&name(1)]).unwrap();
        wait_until("the fan-out is at work", || left(&mut world.client) > 500);
        let some = fastrand::i64(100..i64::from(FILMS));
        wait_until("some films are done", || left(&mut world.client) <= some);
        in_between += u32::from(left(&mut world.client) > 0);
        world.client.execute(sql, &[&name(2)]).unwrap();
        wait_until("nothing is left", || left(&mut world.client) == 0);
        world.check_in_step();
    }
    assert!(in_between > 0, "the test shows nothing: each fan-out was over");
    running.end();
}

fn indexed_title(world: &World, film: u32) -> String {
    // Not a search: this sees what was written a moment ago.
    let path = format!("/{}/_doc/00000000-0000-4000-8000-{film:012}", world.engine.alias());
    let answer = world.engine.succeed("GET", &path, None);
    answer["_source"]["title"].as_str().unwrap_or_default().to_owned()
}
