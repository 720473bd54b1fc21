//! The torture test: random transactions under random faults; every so often the index must be what
//! the database says, document by document.
//!
//! `make torture` runs it for `TORTURE_SECONDS`. `TORTURE_SEED` draws the same transactions and faults
//! once more; how they interleave is up to the machine.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod changes; // random transactions
mod check; // is the index what the database says?
mod children; // the two processes under test
mod films; // random statements about films
mod history; // what was done
mod index; // faults of the index
mod links; // random statements about links
mod meetings; // writers who meet the leader
mod network; // faults between the program and the engine
mod once; // faults that nothing may come after
mod processes; // faults of processes
mod rebuilds; // new indices beside the live ones
mod relay; // faults between the program and PostgreSQL
mod rivals; // two leaders at once
mod servers; // faults of the servers
mod stage; // what all threads share
mod statements; // what a process is about to do
#[expect(dead_code, reason = "the other tests need more of it")]
mod support;
mod writer; // a writer

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, thread};

use fastrand::Rng;

use stage::{EndOnDrop, Mood, Moods, Stage};
use support::world::World;

const WRITERS: u64 = 3;

/// Between two checks.
const SEGMENT: Duration = Duration::from_secs(10);

/// The same where new indices are made.
const REBUILD: Duration = Duration::from_secs(15);

/// From here on servers are restarted, too, unless `TORTURE_RESTARTS` is 0.
const LONG_S: u64 = 120;

fn main() -> ExitCode {
    // `cargo test NAME` runs all tests whose name has NAME, and `--list` only lists them.
    let asked: Vec<String> = env::args().skip(1).collect();
    let is_filter = |arg: &String| !arg.starts_with('-') && !"torture".contains(arg.as_str());
    if asked.iter().any(|arg| is_filter(arg) || arg == "--list") {
        return ExitCode::SUCCESS;
    }
    let seconds = number("TORTURE_SECONDS").unwrap_or(60);
    let seed = number("TORTURE_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    eprintln!("torture for {seconds} s, TORTURE_SEED={seed}");
    let mut world = World::with_all_kinds("torture", "");
    let rows = [rebuilds::fill(), changes::fill(&mut Rng::with_seed(seed))].concat();
    for sql in rows {
        world.sql(&sql);
    }
    let restarts = seconds >= LONG_S && number("TORTURE_RESTARTS") != Some(0);
    let stage = Stage::new(&world, restarts);
    let result = torture(&mut world, &stage, seed, Duration::from_secs(seconds));
    let now = stage.history.now();
    eprintln!("{now:.1} s of torture, TORTURE_SEED={seed}\n{}", stage.history.summary());
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(difference) => {
            eprintln!("{}", describe(&mut world, &stage, &difference));
            eprintln!("failed after {now:.1} s, TORTURE_SEED={seed}: {difference}");
            ExitCode::FAILURE
        }
    }
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: `{text}`")))
}

/// Writes and breaks, and checks every so often; for so long, or until each mood has had its segment.
fn torture(world: &mut World, stage: &Stage, seed: u64, time: Duration) -> Result<(), String> {
    let started = Instant::now();
    stage.children.exit_on_signals();
    stage.children.revive(&stage.history);
    // Everything is loaded before anything is broken.
    check::check(world, stage)?;
    thread::scope(|scope| {
        let _end = EndOnDrop(stage);
        // Each thread draws its own numbers, in whatever order they come to run.
        let rng = |n: u64| Rng::with_seed(seed.wrapping_mul(31).wrapping_add(n));
        for n in 1..=WRITERS {
            scope.spawn(move || writer::run(stage, &format!("writer {n}"), rng(n)));
        }
        scope.spawn(move || processes::run(stage, rng(11)));
        scope.spawn(move || network::run(stage, rng(12)));
        let (mut rng, mut moods) = (rng(13), Moods::new(stage.is_long));
        loop {
            let mood = moods.next(&mut rng);
            stage.history.count("segments", &format!("{mood:?}"));
            stage.set_mood(mood);
            let ends = Instant::now() + if mood == Mood::Rebuilds { REBUILD } else { SEGMENT };
            let ends = if moods.has_had_each() { ends.min(started + time) } else { ends };
            while Instant::now() < ends && stage.mood() != Mood::Nothing {
                thread::sleep(Duration::from_millis(20));
            }
            let _quiet = stage.gate.write().unwrap();
            stage.calm();
            check::check(world, stage)?;
            stage.failure()?;
            if started.elapsed() >= time && moods.has_had_each() {
                return Ok(());
            }
        }
    })
}

/// All that is known of the row in a difference.
fn describe(world: &mut World, stage: &Stage, difference: &str) -> String {
    let ids = ["film ", "person ", "genre ", "row "]
        .iter()
        .find_map(|word| difference.split(word).nth(1)?.get(..36));
    let mut text = String::new();
    if let Some(id) = ids {
        let mut words = vec![id.to_owned()];
        let sql =
            "SELECT person_id::text FROM content.person_film_work WHERE film_work_id::text = $1
            UNION SELECT genre_id::text FROM content.genre_film_work WHERE film_work_id::text = $1";
        words.extend(world.client.query(sql, &[&id]).iter().flatten().map(|row| row.get(0)));
        let row = ["film_work", "person", "genre"]
            .map(|table| {
                format!("SELECT to_jsonb(r)::text FROM content.{table} r WHERE id::text = $1")
            })
            .join(" UNION ALL ");
        let row = world.client.query_opt(&row, &[&id]).ok().flatten();
        let row = row.map_or("no row".to_owned(), |row| row.get::<_, String>(0));
        let history = stage.history.concerning(&words, 30);
        text = format!("--- history of {id}\n{history}--- its row\n  {row}\n");
    }
    for slot in 0..2 {
        let _ = writeln!(
            text,
            "--- the end of the log of etl {slot}\n{}",
            stage.children.tail(slot, 30)
        );
    }
    text
}
