//! The catalogue that is measured with, and questions to it.

use std::thread;
use std::time::{Duration, Instant};

use postgres::Client;

use crate::program;
use crate::support::world::World;

/// The script that developers use by psql.
const SCRIPT: &str = include_str!("../../dev/catalogue.sql");

/// Whatever the program still has to do.
const PENDING: &str = "EXISTS (
        SELECT FROM content.film_work
        WHERE (indexed_at IS NULL OR modified > indexed_at) AND rejected_at IS NULL)
    OR EXISTS (SELECT FROM etl.outbox)
    OR EXISTS (SELECT FROM content.person WHERE fanned_out_at IS NULL)
    OR EXISTS (SELECT FROM content.genre WHERE fanned_out_at IS NULL)";

/// Makes a catalogue of so many films, and what the sync adds to it.
pub fn make(name: &str, films: usize) -> World {
    let mut world = World::bare(name, "");
    program::run(&world, &["migrate"], Duration::from_secs(60));
    let script: Vec<&str> = SCRIPT.lines().filter(|line| !line.starts_with('\\')).collect();
    let script = script.join("\n").replace(":films", &films.to_string());
    // VACUUM cannot be in one message with others.
    let (script, vacuum) = script.split_once("COMMIT;").expect("the script ends its transaction");
    world.sql(&format!("{script}COMMIT;"));
    world.sql(vacuum);
    world
}

/// The id of the n-th film, from 1, as SQL.
pub fn film_id(n: usize) -> String {
    format!("md5('film' || {n})::uuid")
}

/// Waits until the program has nothing left to do.
#[track_caller]
pub fn wait_until_settled(client: &mut Client, limit: Duration) {
    let deadline = Instant::now() + limit;
    while number(client, &format!("SELECT ({PENDING})::integer::float8")) > 0.0 {
        assert!(Instant::now() < deadline, "not in step after {} s", limit.as_secs());
        thread::sleep(Duration::from_millis(20));
    }
}

/// The one number of a query.
#[track_caller]
pub fn number(client: &mut Client, sql: &str) -> f64 {
    let row = client.query_one(sql, &[]).unwrap_or_else(|err| panic!("{sql}: {err:?}"));
    row.get(0)
}

/// The one text of a query.
#[track_caller]
pub fn text(client: &mut Client, sql: &str) -> String {
    let row = client.query_one(sql, &[]).unwrap_or_else(|err| panic!("{sql}: {err:?}"));
    row.get(0)
}
