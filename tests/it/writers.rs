//! The users' writers: they do not wait for the program, whatever state it is in, and never meet it in
//! a deadlock; and what they leave behind for it is small.

mod deadlocks;
mod fan_out;

use std::thread;
use std::time::{Duration, Instant};

use postgres::Client;

use crate::support::proxy::{Fault, Proxy};
use crate::support::wait::wait_until;
use crate::support::world::{Running, World};

/// Films 1 to 2,000, each with one of the genres 1 to 10 and two of the persons 1 to 100. The links have
/// the ids of their films.
const CATALOGUE: &str = "
    INSERT INTO content.genre (id, name)
        SELECT pg_temp.id(n), 'Genre ' || n FROM generate_series(1, 10) AS n;
    INSERT INTO content.person (id, full_name)
        SELECT pg_temp.id(n), 'Person ' || n FROM generate_series(1, 100) AS n;
    INSERT INTO content.film_work (id, title)
        SELECT pg_temp.id(n), 'Film ' || n FROM generate_series(1, 2000) AS n;
    INSERT INTO content.genre_film_work (id, genre_id, film_work_id)
        SELECT pg_temp.id(n), pg_temp.id(1 + n % 10), pg_temp.id(n) FROM generate_series(1, 2000) AS n;
    INSERT INTO content.person_film_work (id, person_id, film_work_id, role)
        SELECT pg_temp.id(n), pg_temp.id(1 + n % 100), pg_temp.id(n), 'actor'
            FROM generate_series(1, 2000) AS n;
    INSERT INTO content.person_film_work (id, person_id, film_work_id, role)
        SELECT gen_random_uuid(), pg_temp.id(1 + n % 97), pg_temp.id(n), 'writer'
            FROM generate_series(1, 2000) AS n;";

/// Work of every kind: films, touches of links, and fan-outs.
const BACKLOG: &str = "
    UPDATE content.film_work SET title = title || '.';
    UPDATE content.person_film_work SET role = 'director' WHERE role = 'writer';
    UPDATE content.person_film_work SET role = 'writer' WHERE role = 'director';
    UPDATE content.genre SET name = name || '.';
    UPDATE content.person SET full_name = full_name || '.' WHERE id < pg_temp.id(50);";

/// What is tried while the program cannot go on. Together they leave the catalogue as it was, but for
/// names.
const WRITES: &[&str] = &[
    "UPDATE content.film_work SET rating = 5 WHERE id = pg_temp.id(7)",
    "UPDATE content.film_work SET rating = 5 WHERE id = pg_temp.id(1990)",
    "INSERT INTO content.film_work (id, title) VALUES (pg_temp.id(3000), 'New')",
    "INSERT INTO content.genre_film_work (id, genre_id, film_work_id)
        VALUES (pg_temp.id(3000), pg_temp.id(1), pg_temp.id(3000))",
    "UPDATE content.genre_film_work SET genre_id = pg_temp.id(2) WHERE id = pg_temp.id(3000)",
    "DELETE FROM content.film_work WHERE id = pg_temp.id(3000)",
    "UPDATE content.person SET full_name = 'Renamed' WHERE id = pg_temp.id(1)",
    "INSERT INTO content.person (id, full_name) VALUES (pg_temp.id(3000), 'New')",
    "DELETE FROM content.person WHERE id = pg_temp.id(3000)",
    "UPDATE content.genre SET name = 'Renamed' WHERE id = pg_temp.id(1)",
    "INSERT INTO content.genre (id, name) VALUES (pg_temp.id(3000), 'New')",
    "DELETE FROM content.genre WHERE id = pg_temp.id(3000)",
    "DELETE FROM content.genre_film_work WHERE id = pg_temp.id(7)",
    "INSERT INTO content.genre_film_work (id, genre_id, film_work_id)
        VALUES (pg_temp.id(7), pg_temp.id(8), pg_temp.id(7))",
    "UPDATE content.film_work SET description = 'all of them'",
    "BEGIN; TRUNCATE content.genre_film_work; ROLLBACK",
    "ALTER TABLE content.film_work ADD COLUMN x int",
    "ALTER TABLE content.film_work DROP COLUMN x",
];

/// More than any of them takes by itself, and less than the program's own limits would end a wait after.
const WRITE_MAX: Duration = Duration::from_secs(2);

/// A session of a writer who does not want to wait, with a function that makes ids of numbers.
fn writer(world: &World) -> Client {
    let mut client = world.database.client();
    client
        .batch_execute(
            "SET lock_timeout = '2s';
             CREATE FUNCTION pg_temp.id(number bigint) RETURNS uuid LANGUAGE sql IMMUTABLE
             RETURN ('00000000-0000-4000-8000-' || lpad(number::text, 12, '0'))::uuid",
        )
        .unwrap();
    client
}

/// A catalogue whose index is in step, and a writer.
fn catalogue(name: &str) -> (World, Client) {
    let mut world = World::new(name);
    world.client = writer(&world);
    world.sql(CATALOGUE);
    world.sync();
    let writer = writer(&world);
    (world, writer)
}

#[track_caller]
fn check_nobody_waits(writer: &mut Client, situation: &str) {
    for sql in WRITES {
        let started = Instant::now();
        if let Err(err) = writer.batch_execute(sql) {
            let sessions = describe_sessions(writer);
            panic!("{situation}: {sql}: {err:?}\n{sessions}");
        }
        let took = started.elapsed();
        assert!(took < WRITE_MAX, "{situation}: {sql} took {took:?}");
    }
}

/// What all sessions of the database do.
fn describe_sessions(client: &mut Client) -> String {
    let sql = "SELECT concat_ws(' ', pid, application_name, state, wait_event_type, wait_event,
            'in transaction for', clock_timestamp() - xact_start, left(query, 100))
        FROM pg_stat_activity WHERE datname = current_database()";
    let rows = client.query(sql, &[]).unwrap();
    rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>().join("\n")
}

/// Starts the program, and waits until a term of its own has begun.
fn spawn_at_work(world: &mut World, args: &[&str]) -> Running {
    let epoch = |world: &mut World| -> i64 {
        world.client.query_one("SELECT epoch FROM etl.term", &[]).unwrap().get(0)
    };
    let before = epoch(world);
    let running = world.spawn(args);
    wait_until("a term begins", || epoch(world) > before);
    running
}

/// Ends a process as a power cut does.
fn kill(running: Running) {
    running.signal("-KILL");
    let _ = running.wait();
}

#[test]
fn nobody_waits_for_a_frozen_process_wherever_it_was_frozen() {
    let (mut world, mut writer) = catalogue("writers_frozen");
    let start = ["start", "--batch-size", "200"];
    for round in 0..16 {
        world.sql(BACKLOG);
        // Some also on their way to work.
        let running =
            if round % 4 == 0 { world.spawn(&start) } else { spawn_at_work(&mut world, &start) };
        let after = fastrand::u64(5..300);
        thread::sleep(Duration::from_millis(after));
        running.signal("-STOP");
        check_nobody_waits(&mut writer, &format!("round {round}, frozen after {after} ms"));
        kill(running);
    }
    world.sync();
    world.check_in_step();
}

#[test]
fn nobody_waits_for_a_request_that_hangs_in_the_engine() {
    let (mut world, mut writer) = catalogue("writers_hang");
    let proxy = Proxy::new(&world.engine.url);
    world.sql(BACKLOG);
    let start = ["start", "--batch-size", "200", "--elasticsearch-url", &proxy.url];
    for requests_before in 0..6 {
        let faults = std::iter::repeat_n(Fault::Pass, requests_before);
        proxy.plan(faults.chain([Fault::Hang]));
        let before = proxy.bulk_requests();
        let running = world.spawn(&start);
        wait_until("a request hangs", || proxy.bulk_requests() > before + requests_before);
        check_nobody_waits(&mut writer, &format!("request {requests_before} hangs"));
        kill(running);
    }
    proxy.plan([]);
    world.sync();
    world.check_in_step();
}

/// The films that the open transaction holds have the highest ids: a difference is told of the lowest.
#[test]
fn a_transaction_that_is_left_open_holds_up_its_own_rows_alone() {
    let (mut world, mut writer) = catalogue("writers_open");
    world.sql("UPDATE content.film_work SET title = 'pending' WHERE id > pg_temp.id(1990)");
    let mut transaction = writer.transaction().unwrap();
    transaction
        .batch_execute(
            "SELECT FROM content.film_work WHERE id > pg_temp.id(1995) FOR UPDATE;
             UPDATE content.film_work SET title = 'held'
                 WHERE id BETWEEN pg_temp.id(1981) AND pg_temp.id(1995);
             DELETE FROM content.genre_film_work WHERE id = pg_temp.id(1981);
             UPDATE content.person SET full_name = 'Held' WHERE id > pg_temp.id(90);
             UPDATE content.genre SET name = 'Held' WHERE id = pg_temp.id(10)",
        )
        .unwrap();
    let proxy = Proxy::new(&world.engine.url);
    let running = world.spawn(&["start", "--elasticsearch-url", &proxy.url]);
    world.sql(
        "UPDATE content.film_work SET title = 'free' WHERE id <= pg_temp.id(1980);
         DELETE FROM content.genre_film_work WHERE id > pg_temp.id(1900) AND id < pg_temp.id(1981);
         UPDATE content.genre SET name = 'Free' WHERE id <= pg_temp.id(9);
         UPDATE content.person SET full_name = 'Free' WHERE id <= pg_temp.id(90)",
    );
    wait_until("all others are in step", || {
        let is_held = |line: &str| (1981..=2000).any(|n| line.contains(&format!("-{n:012}")));
        world.difference().is_none_or(|text| is_held(text.lines().next().unwrap_or_default()))
    });
    thread::sleep(Duration::from_secs(1));
    let requests = proxy.bulk_requests();
    thread::sleep(Duration::from_secs(2));
    assert_eq!(proxy.bulk_requests(), requests, "something is sent again and again");
    transaction.commit().unwrap();
    world.wait_in_step();
    running.end();
}

#[test]
fn what_is_left_for_a_process_that_is_down_is_small() {
    let (mut world, mut writer) = catalogue("writers_outbox");
    let rows = |client: &mut Client| -> i64 {
        client.query_one("SELECT count(*) FROM etl.outbox", &[]).unwrap().get(0)
    };
    assert_eq!(rows(&mut world.client), 0);
    world.sql("UPDATE content.film_work SET title = title || '!'");
    world.sql("UPDATE content.person SET full_name = full_name || '!'");
    assert_eq!(rows(&mut world.client), 0, "an edit leaves nothing but its own row");
    for _ in 0..5 {
        writer.batch_execute("UPDATE content.person_film_work SET role = role").unwrap();
        writer.batch_execute("UPDATE content.genre_film_work SET genre_id = genre_id").unwrap();
    }
    // And no person: there are no documents of them here.
    let entries = 10 * 2_000;
    assert_eq!(rows(&mut world.client), entries, "a film is noted once for each statement");
    let sql = "SELECT avg(pg_column_size(o.*))::float8 FROM etl.outbox o";
    let bytes: f64 = world.client.query_one(sql, &[]).unwrap().get(0);
    assert!(bytes <= 100.0, "an entry of the outbox has {bytes} bytes");
    world.sync();
    world.check_in_step();
    assert_eq!(rows(&mut world.client), 0);
}

#[test]
fn links_that_come_and_go_between_two_refreshes_end_as_they_are() {
    let (mut world, mut writer) = catalogue("writers_flicker");
    let running = world.spawn(&["start", "--poll-interval", "5ms"]);
    let insert = "INSERT INTO content.genre_film_work (id, genre_id, film_work_id)
        VALUES (pg_temp.id($1), pg_temp.id($2), pg_temp.id($3))
        ON CONFLICT (film_work_id, genre_id) DO NOTHING";
    let insert = writer.prepare(insert).unwrap();
    let delete = "DELETE FROM content.genre_film_work WHERE id = pg_temp.id($1)";
    let delete = writer.prepare(delete).unwrap();
    for link in 10_000..11_000_i64 {
        // So many films that for most of them nothing comes later that would mend them.
        let (genre, film) = (fastrand::i64(1..=10), fastrand::i64(1..=300));
        writer.execute(&insert, &[&link, &genre, &film]).unwrap();
        // Some at once, some when they have been sent, some never.
        let ended = if fastrand::bool() { link } else { fastrand::i64(link - 300..=link) };
        if fastrand::u8(..4) > 0 {
            writer.execute(&delete, &[&ended]).unwrap();
        }
    }
    world.wait_in_step();
    running.end();
}
