//! New indices beside the live ones, while everything goes on: asked for, killed, cancelled; and searches
//! that must always find what was there all along.

use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use postgres::Client;
use serde_json::{Value, json};

use crate::index::send;
use crate::processes::{end_sessions, kill, leader};
use crate::rivals::wait_until;
use crate::stage::Stage;
use crate::support::proxy::{Fault, Proxy};

/// Persons and genres that no writer deletes.
pub const LASTING: u32 = 20;

/// How long a rebuild may take among all faults, before it is left to others.
const REBUILD_MAX: Duration = Duration::from_secs(15);

/// The id of one of the rows that last.
pub fn lasting_id(number: u32) -> String {
    format!("c0000000-0000-4000-8000-{number:012}")
}

/// Rows that last.
pub fn fill() -> Vec<String> {
    let rows = (0..LASTING).flat_map(|number| {
        let id = lasting_id(number);
        [
            format!(
                "INSERT INTO content.person (id, full_name) VALUES ('{id}', 'Lasting {number}')"
            ),
            format!("INSERT INTO content.genre (id, name) VALUES ('{id}', 'Lasting {number}')"),
        ]
    });
    rows.collect()
}

/// Asks for a rebuild, breaks something while it is under way, and searches all the time. In the end it is
/// done, or somebody else is at it.
pub fn rebuild_and_search(stage: &Stage, rng: &mut Rng) {
    if !["persons", "genres"].iter().all(|kind| count_lasting(stage, kind) == Some(LASTING)) {
        // The engine is away, or not filled yet.
        stage.history.count("rebuilds", "not asked for");
        return;
    }
    let mut command = ask(stage, rng);
    let began = Instant::now();
    if rng.bool() {
        refuse_first(stage, rng);
    }
    let mut breaks_at = Duration::from_millis(rng.u64(20..1_500));
    loop {
        if let Some(status) = command.try_wait().expect("ask for the exit code") {
            let end = if status.success() { "done" } else { "given up" };
            stage.history.count("rebuilds", end);
            break;
        }
        if began.elapsed() > REBUILD_MAX || stage.has_ended() {
            stage.history.count("rebuilds", "left to others");
            break;
        }
        if began.elapsed() > breaks_at {
            breaks_at = REBUILD_MAX;
            break_something(stage, rng, &mut command);
        }
        search(stage);
        thread::sleep(Duration::from_millis(5));
    }
    let _ = command.kill();
    let _ = command.wait();
}

/// What is sent to the new indices first does not come there.
fn refuse_first(stage: &Stage, rng: &mut Rng) {
    let mut indices = Vec::new();
    wait_until(1_000, || {
        indices = find_new(stage).into_iter().map(|new| new.index).collect();
        !indices.is_empty()
    });
    let fault = rng.choice([Fault::DropRequest, Fault::Status(503), Fault::Status(429)]);
    stage.plan_at(&indices, &[fault.expect("some faults")]);
    wait_until(3_000, || stage.proxies.iter().any(Proxy::has_broken_all_at));
    stage.history.count("faults amid a rebuild", "first request lost");
}

/// Asks for a rebuild, and leaves it alone after a while.
pub fn rebuild_and_leave(stage: &Stage, rng: &mut Rng) {
    let mut command = ask(stage, rng);
    stage.pause(rng, 100, 3_000);
    let _ = command.kill();
    let _ = command.wait();
}

/// An index that is filled beside the live one.
pub struct New {
    pub index: String,
    /// All rows have been sent to it once: what it does not take now it has to be sent again.
    pub is_full: bool,
}

/// Finds the indices that are filled beside the live ones.
pub fn find_new(stage: &Stage) -> Vec<New> {
    let is_full = |table: &str| {
        format!(
            "NOT EXISTS (SELECT FROM content.{table} WHERE filled_to IS NULL OR id > filled_to)"
        )
    };
    let [film, person, genre] = ["film_work", "person", "genre"].map(is_full);
    let sql = format!(
        "SELECT index_name, CASE kind WHEN 'film_work' THEN {film} WHEN 'person' THEN {person} ELSE {genre} END
         FROM etl.rebuild WHERE phase IN ('requested', 'filling')"
    );
    let rows = stage.connect().and_then(|mut client| client.query(&sql, &[]).ok());
    let rows = rows.into_iter().flatten();
    rows.map(|row| New { index: row.get(0), is_full: row.get(1) }).collect()
}

/// Finds an index that was given up because it was not what it had to be. Nobody has written into it but the
/// program.
pub fn find_wrong(client: &mut Client) -> Option<String> {
    let sql = "SELECT kind || ', for ' || failure FROM etl.rebuild
        WHERE phase = 'failed' AND failure ~ '^it(s document| holds [0-9])'";
    let row = client.query_opt(&format!("{sql} LIMIT 1"), &[]).ok().flatten()?;
    Some(format!("the rebuild was given up of {}", row.get::<_, String>(0)))
}

fn ask(stage: &Stage, rng: &mut Rng) -> Child {
    // Where one was given up, another takes its place.
    if let Some(wrong) = stage.connect().and_then(|mut client| find_wrong(&mut client)) {
        stage.fail(wrong);
    }
    let all = "movies,persons,genres";
    let kinds = ["movies", "movies", "persons", "genres", all, all];
    let kind = rng.choice(kinds).expect("some kinds");
    let size = rng.choice(["3", "20", "1000"]).expect("some sizes");
    let slot = rng.usize(..2);
    let mut command =
        stage.children.command(slot, &["rebuild", "--kind", kind, "--batch-size", size]);
    stage.history.count("rebuilds", "asked for");
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start etl")
}

fn break_something(stage: &Stage, rng: &mut Rng, command: &mut Child) {
    let what = match rng.u8(..8) {
        0 | 1 => {
            hang_and_kill(stage, rng);
            "leader killed amid a request to the new index"
        }
        2 => {
            kill(stage, rng, &leader(stage));
            "leader killed"
        }
        3 => {
            let _ = command.kill();
            "command killed"
        }
        4 => {
            end_sessions(stage, rng);
            "sessions ended"
        }
        5 => {
            stage.children.run(&["rebuild", "--cancel"]);
            "cancelled"
        }
        _ => return,
    };
    stage.history.count("faults amid a rebuild", what);
}

/// The leader is killed when it has sent something to the new index alone, which has not come there.
fn hang_and_kill(stage: &Stage, rng: &mut Rng) {
    let indices: Vec<String> = find_new(stage).into_iter().map(|new| new.index).collect();
    stage.plan_at(&indices, &[Fault::Hang]);
    let slots = leader(stage);
    wait_until(1_000, || slots.iter().any(|slot| stage.proxies[*slot].has_broken_all_at()));
    kill(stage, rng, &slots);
    stage.plan_at(&[], &[]);
}

fn search(stage: &Stage) {
    for kind in ["persons", "genres"] {
        stage.history.count("searches beside a rebuild", kind);
        match count_lasting(stage, kind) {
            Some(LASTING) => (),
            found => stage.fail(format!(
                "a search beside a rebuild has found {found:?} of {LASTING} {kind} that were there all along"
            )),
        }
    }
}

fn count_lasting(stage: &Stage, kind: &str) -> Option<u32> {
    let ids: Vec<String> = (0..LASTING).map(lasting_id).collect();
    let query = json!({ "query": { "terms": { "id": ids } } });
    let answer: Value = send(stage, "POST", &format!("/{}{kind}/_count", stage.prefix), &query);
    answer["count"].as_u64().and_then(|count| u32::try_from(count).ok())
}
