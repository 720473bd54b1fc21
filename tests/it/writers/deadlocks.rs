//! Many writers that lock each other out, beside a process that works: no deadlock is the program's.

use std::thread;

use postgres::error::SqlState;
use postgres::{Client, Error};

use super::writer;
use crate::support::wait::wait_until;
use crate::support::world::World;

const WRITERS: usize = 4;

/// Few rows, so that the writers meet each other and the program all the time.
const ROWS: &str = "
    INSERT INTO content.genre (id, name)
        SELECT pg_temp.id(n), 'Genre ' || n FROM generate_series(1, 5) AS n;
    INSERT INTO content.person (id, full_name)
        SELECT pg_temp.id(n), 'Person ' || n FROM generate_series(1, 20) AS n;
    INSERT INTO content.film_work (id, title)
        SELECT pg_temp.id(n), 'Film ' || n FROM generate_series(1, 60) AS n;
    INSERT INTO content.genre_film_work (id, genre_id, film_work_id)
        SELECT pg_temp.id(n), pg_temp.id(1 + n % 5), pg_temp.id(n) FROM generate_series(1, 60) AS n;
    INSERT INTO content.person_film_work (id, person_id, film_work_id, role)
        SELECT pg_temp.id(n), pg_temp.id(1 + n % 20), pg_temp.id(n), 'actor'
            FROM generate_series(1, 60) AS n;";

/// The order in which a transaction takes its rows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Ids,
    Random,
}

/// What the writers of one run have seen.
#[derive(Default)]
struct Seen {
    /// The sessions of the writers.
    sessions: Vec<i32>,
    /// What PostgreSQL said about each deadlock.
    deadlocks: Vec<String>,
}

#[test]
fn writers_that_lock_in_the_order_of_ids_see_no_deadlock() {
    let (mut world, seen, _) = run_writers("writers_ordered", Order::Ids, 2_500);
    assert!(seen.deadlocks.is_empty(), "{}", seen.deadlocks[0]);
    assert_eq!(counted_deadlocks(&mut world), 0);
}

#[test]
fn writers_that_lock_in_any_order_meet_each_other_in_a_deadlock_and_never_the_program() {
    let (mut world, seen, said) = run_writers("writers_unordered", Order::Random, 750);
    assert!(!seen.deadlocks.is_empty(), "the test shows nothing: no deadlock at all");
    let count = i64::try_from(seen.deadlocks.len()).unwrap();
    wait_until("the deadlocks are counted", || counted_deadlocks(&mut world) >= count);
    assert_eq!(counted_deadlocks(&mut world), count, "somebody else was ended for a deadlock");
    assert!(!said.contains("deadlock"), "{said}");
    for deadlock in &seen.deadlocks {
        let others: Vec<i32> =
            processes(deadlock).filter(|pid| !seen.sessions.contains(pid)).collect();
        assert!(others.is_empty(), "{others:?} are no writers: {deadlock}");
    }
}

/// Has the writers do so many transactions each while the program works, and waits until all is in step.
/// Returns what the writers saw and what the program said.
fn run_writers(name: &str, order: Order, transactions: usize) -> (World, Seen, String) {
    let mut world = World::new(name);
    let settings = "DO $$ BEGIN EXECUTE
        format('ALTER DATABASE %I SET deadlock_timeout = ''10ms''', current_database()); END $$";
    // The default of a second would let most deadlocks end by themselves, and the test take long.
    world.sql(settings);
    world.client = writer(&world);
    world.sql(ROWS);
    let running = world.spawn(&["start", "--poll-interval", "1ms"]);
    world.wait_in_step();
    let threads: Vec<_> = (0..WRITERS)
        .map(|_| {
            let client = writer(&world);
            thread::spawn(move || write(client, order, transactions))
        })
        .collect();
    let mut seen = Seen::default();
    for thread in threads {
        let of_one = thread.join().expect("a writer failed");
        seen.sessions.extend(of_one.sessions);
        seen.deadlocks.extend(of_one.deadlocks);
    }
    world.wait_in_step();
    let outcome = running.end();
    (world, seen, outcome.stderr)
}

fn write(mut client: Client, order: Order, transactions: usize) -> Seen {
    let session = client.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let mut seen = Seen { sessions: vec![session], ..Seen::default() };
    for number in 0..transactions {
        // Without BEGIN, they are one transaction all the same.
        let Err(err) = client.batch_execute(&statements(order, number).join(";")) else { continue };
        assert_eq!(err.code(), Some(&SqlState::T_R_DEADLOCK_DETECTED), "{err:?}");
        seen.deadlocks.push(detail(&err));
    }
    seen
}

/// The statements of a transaction, in the order of the tables and of the ids, or in any.
fn statements(order: Order, number: usize) -> Vec<String> {
    let draw = |count: u32, max: u32| {
        let mut ids: Vec<u32> = (0..count).map(|_| fastrand::u32(1..=max)).collect();
        ids.sort_unstable();
        ids
    };
    let mut statements = Vec::new();
    for id in draw(3, 60) {
        statements.push(format!(
            "UPDATE content.film_work SET title = '{number}' WHERE id = pg_temp.id({id})"
        ));
    }
    for id in draw(1, 20) {
        statements.push(format!(
            "UPDATE content.person SET full_name = '{number}' WHERE id = pg_temp.id({id})"
        ));
    }
    for id in draw(2, 60) {
        statements.push(format!(
            "UPDATE content.person_film_work SET role = (ARRAY['actor', 'writer'])[1 + {number} % 2]
             WHERE id = pg_temp.id({id})"
        ));
    }
    if order == Order::Random {
        fastrand::shuffle(&mut statements);
    }
    statements
}

fn detail(err: &Error) -> String {
    err.as_db_error().and_then(|err| err.detail()).expect("who waits for whom").to_owned()
}

/// The sessions in a text like "Process 12 waits for a lock; blocked by process 34."
fn processes(detail: &str) -> impl Iterator<Item = i32> {
    let words: Vec<&str> = detail.split_whitespace().collect();
    let pids: Vec<i32> = words
        .windows(2)
        .filter(|pair| pair[0].eq_ignore_ascii_case("process"))
        .map(|pair| pair[1].trim_end_matches('.').parse().expect("a number"))
        .collect();
    assert!(pids.len() >= 4, "not what PostgreSQL used to say: {detail}");
    pids.into_iter()
}

fn counted_deadlocks(world: &mut World) -> i64 {
    let sql = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    world.client.query_one(sql, &[]).unwrap().get(0)
}
