//! Faults between the program and the engine: lost, cut, refused, late and doubled requests, and
//! documents that somebody writes by hand.

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use postgres::{Client, Error};

use crate::films::film_anywhere;
use crate::index::searched;
use crate::meetings::{edit_amid_request, hold_beside_change};
use crate::rebuilds::find_new;
use crate::stage::{Mood, Stage};
use crate::support::proxy::Fault;

const FAULTS: [Fault; 16] = [
    Fault::SlowAnswer(Duration::from_millis(200)),
    Fault::SlowAnswer(Duration::from_millis(500)),
    Fault::SlowAnswer(Duration::from_millis(1_500)),
    Fault::DropRequest,
    Fault::DropRequest,
    Fault::DropAnswer,
    Fault::DropAnswer,
    Fault::CutAnswer,
    Fault::Status(429),
    Fault::Status(503),
    Fault::Status(413),
    Fault::TooFewItems,
    Fault::NotJson,
    Fault::HalfOfItems(429, "es_rejected_execution_exception"),
    Fault::HalfOfItems(503, "unavailable_shards_exception"),
    Fault::HalfOfItems(429, "circuit_breaking_exception"),
];

/// Breaks things until the end.
pub fn run(stage: &Stage, mut rng: Rng) {
    // Changes of rows whose documents were written by hand, that could not be made yet.
    let mut to_follow: Vec<String> = Vec::new();
    while !stage.has_ended() || !to_follow.is_empty() {
        stage.pause(&mut rng, 100, if stage.mood() == Mood::Anything { 1_200 } else { 300 });
        let gate = stage.gate.read().unwrap();
        if stage.has_ended() {
            return;
        }
        match (stage.mood(), rng.u8(..10)) {
            (Mood::LateRequests, 7..) | (Mood::Rebuilds, 7) => edit_amid_request(stage, &mut rng),
            (Mood::LateRequests, 5..7) | (Mood::Rebuilds, 8) => hold_beside_change(stage, &mut rng),
            (Mood::LateRequests, 4) | (Mood::Anything, 8..) => {
                write_by_hand(stage, &mut rng, &mut to_follow);
            }
            (Mood::LateRequests, _) | (Mood::Anything, 5..) => replay(stage, &mut rng),
            (Mood::Anything, 0..4) | (Mood::Rebuilds, 0) => break_requests(stage, &mut rng),
            (Mood::Rebuilds, 1..5) => break_new_index(stage, &mut rng),
            (Mood::Anything, 4) => take_away(stage, &mut rng),
            (Mood::Once | Mood::Rebuilds | Mood::Restart | Mood::Nothing, _) => (),
        }
        while !to_follow.is_empty() {
            follow(stage, &mut to_follow);
            if stage.has_ended() {
                return;
            }
        }
        drop(gate);
    }
}

fn break_requests(stage: &Stage, rng: &mut Rng) {
    let faults: Vec<Fault> = (0..rng.usize(1..4))
        .flat_map(|_| {
            [FAULTS[rng.usize(..FAULTS.len())], Fault::Pass].into_iter().take(rng.usize(1..3))
        })
        .collect();
    for fault in &faults {
        if *fault != Fault::Pass {
            stage.history.count("faults planned for a bulk request", &format!("{fault:?}"));
        }
    }
    stage.plan(&faults);
}

/// Breaks what is sent to the indices that are filled beside the live ones, and nothing else: most of it where
/// they have everything, and what they do not take now is to be sent again.
fn break_new_index(stage: &Stage, rng: &mut Rng) {
    let new = find_new(stage);
    let full: Vec<String> =
        new.iter().filter(|new| new.is_full).map(|new| new.index.clone()).collect();
    let is_filling = full.is_empty();
    if new.is_empty() || is_filling && rng.u8(..4) > 0 {
        return;
    }
    let indices = if is_filling { new.into_iter().map(|new| new.index).collect() } else { full };
    let last = FAULTS.len() - 1;
    let faults = [Fault::Pass; 4].map(|pass| match rng.u8(..6) {
        0..3 => FAULTS[last - rng.usize(..3)],
        3 => FAULTS[rng.usize(..=last)],
        _ => pass,
    });
    let faults = if is_filling { &faults[..1] } else { &faults[..] };
    for fault in faults.iter().filter(|fault| **fault != Fault::Pass) {
        stage.history.count("faults planned for a new index", &format!("{fault:?}"));
    }
    stage.plan_at(&indices, faults);
    // Something that it concerns, and that no other change puts right.
    let change = film_anywhere(rng);
    let began = stage.history.now();
    if stage.connect().is_some_and(|mut client| client.batch_execute(&change).is_ok()) {
        stage.history.note(began, "fault", format!("new index broken, and {change}"));
    }
}

fn take_away(stage: &Stage, rng: &mut Rng) {
    stage.set_up(false);
    stage.pause(rng, 100, 1_200);
    stage.set_up(true);
    stage.history.count("faults", "engine out of reach");
}

/// Requests of the past arrive once more, or for the first time.
fn replay(stage: &Stage, rng: &mut Rng) {
    for _ in 0..rng.u8(1..8) {
        let _alone = stage.replays.lock().unwrap();
        let began = stage.history.now();
        let proxy = &stage.proxies[rng.usize(..2)];
        let recorded = proxy.recorded();
        let count = recorded.len();
        if count == 0 {
            continue;
        }
        // Old ones mostly go through an alias that was replaced; young ones do not.
        let young = if stage.mood() == Mood::LateRequests { 100 } else { 10 };
        let oldest = if rng.bool() { count } else { count.min(young) };
        let age = rng.usize(..oldest);
        if proxy.deliver(&recorded[count - 1 - age]).is_some() {
            stage.history.count("faults", "late request");
            stage.history.note(began, "fault", format!("late request, {age} of {count}"));
        }
    }
}

/// Those of each process's requests of such ages that are chosen arrive once more, the youngest first.
pub fn deliver_late(stage: &Stage, ages: Range<usize>, mut is_chosen: impl FnMut(&[u8]) -> bool) {
    for proxy in &stage.proxies {
        let requests = proxy.recorded();
        let last = requests.iter().rev().take(ages.end).skip(ages.start);
        let delivered =
            last.filter(|request| is_chosen(request)).filter_map(|request| proxy.deliver(request));
        stage.history.add("faults", "late request", delivered.count() as u64);
    }
}

/// Overwrites or deletes a document with a far higher version, and touches or deletes its row afterwards.
fn write_by_hand(stage: &Stage, rng: &mut Rng, to_follow: &mut Vec<String>) {
    let Some(mut client) = stage.connect() else { return };
    let began = stage.history.now();
    if let Ok(Some(ByHand { id, what, change })) = hold_and_write(stage, rng, &mut client) {
        stage.history.count("faults", &format!("document {what} by hand"));
        stage.history.note(began, "fault", format!("document {id} {what} by hand, then {change}"));
        to_follow.push(change);
    }
}

/// While the row is held nobody deletes it, so what is done to it later comes later.
fn hold_and_write(
    stage: &Stage,
    rng: &mut Rng,
    client: &mut Client,
) -> Result<Option<ByHand>, Error> {
    let mut transaction = client.transaction()?;
    let sql =
        "SELECT id::text FROM content.film_work ORDER BY random() LIMIT 1 FOR UPDATE SKIP LOCKED";
    let Some(row) = transaction.query_opt(sql, &[])? else { return Ok(None) };
    let id: String = row.get(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    let ahead = if rng.bool() { 1_000_000 } else { rng.u64(..1_000_000_000_000_000) };
    let version = u64::try_from(now.as_micros()).expect("a clock of today") + ahead;
    let head = format!(r#""_id": "{id}", "version": {version}, "version_type": "external""#);
    let (body, what) = if rng.bool() {
        (format!("{{\"delete\": {{{head}}}}}\n"), "deleted")
    } else {
        let document = format!(r#"{{"id": "{id}", "title": "by hand"}}"#);
        (format!("{{\"index\": {{{head}}}}}\n{document}\n"), "overwritten")
    };
    // By its own name: if the alias is gone, a delete through it would make an index of that name.
    let Some((index, _)) = searched(stage, "movies").into_iter().next() else { return Ok(None) };
    let url = format!("{}/{index}/_bulk", stage.engine_url);
    // Whatever becomes of it: it may have been carried out.
    let _ = ureq::post(url).header("Content-Type", "application/x-ndjson").send(body);
    let change = if rng.bool() {
        format!("DELETE FROM content.film_work WHERE id = '{id}'")
    } else {
        format!("UPDATE content.film_work SET indexed_at = NULL WHERE id = '{id}'")
    };
    // Together with it, or later: others may come in between.
    if rng.bool() && transaction.batch_execute(&change).is_ok() {
        let _ = transaction.commit();
    }
    Ok(Some(ByHand { id, what, change }))
}

/// A document that was written by hand.
struct ByHand {
    id: String,
    what: &'static str,
    /// The statement by which its row follows.
    change: String,
}

fn follow(stage: &Stage, to_follow: &mut Vec<String>) {
    let Some(mut client) = stage.connect() else { return };
    to_follow.retain(|change| client.batch_execute(change).is_err());
}
