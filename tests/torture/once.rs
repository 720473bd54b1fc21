//! Faults that are seen only where no other fault, and no change of the same rows, comes after them.

use std::thread;
use std::time::Duration;

use fastrand::Rng;
use postgres::Error;

use crate::changes::{focus, move_focus, one_of_each};
use crate::films::{are_settled, films_delete, films_insert};
use crate::index::remake_index;
use crate::meetings::hold_beside_change;
use crate::network::deliver_late;
use crate::processes::{Cause, find_leader, init_es, kill};
use crate::rivals::{delete_late, deletions_late, documents_late, links_late, usurp, wait_until};
use crate::stage::{Mood, Stage};
use crate::statements::contains;

/// They come in turn.
pub const ONCE: [(&str, Cause); 10] = [
    ("films deleted that are back", |stage, rng| {
        usurp(stage, rng, |stage, rng, slot| drop(delete_late(stage, rng, slot)));
    }),
    KILLED,
    ("leader killed amid a fan-out", |stage, rng| kill_before(stage, rng, "etl.expand_fan_outs")),
    ("links gone amid a reading", LEAD_LOST[0]),
    ("lead lost unnoticed", LEAD_LOST[1]),
    ("lead lost unnoticed", LEAD_LOST[2]),
    ("init-es before a stamp", init_es_before_stamp),
    ("documents late for films that are gone", |stage, rng| {
        drop(documents_of_deleted(stage, rng));
    }),
    ("film held beside a change", |stage, rng| {
        hold_beside_change(stage, rng);
        stage.set_mood(Mood::Nothing);
    }),
    ("index made again by hand", |stage, rng| {
        remake_index(stage, rng);
        stage.set_mood(Mood::Nothing);
    }),
];

/// A leader that does not know that it has lost its lead.
pub const LEAD_LOST: [Cause; 3] = [
    |stage, rng| usurp(stage, rng, |stage, rng, slot| drop(links_late(stage, rng, slot))),
    |stage, rng| usurp(stage, rng, documents_late),
    |stage, rng| usurp(stage, rng, deletions_late),
];

pub const KILLED: (&str, Cause) = ("leader killed between two statements", |stage, rng| {
    let word = rng.choice(STATEMENTS).expect("some statements");
    kill_before(stage, rng, word);
});

/// Statements before which a leader is killed.
const STATEMENTS: [&str; 7] = [
    "etl.expand_fan_outs",
    "wanted AS",
    "pg_current_wal_flush_lsn",
    "etl.stamp_rows",
    "o.op = 'tombstone'",
    "DELETE FROM etl.outbox",
    "FROM content.genre_film_work",
];

/// What was sent to the former index is stamped when there is another one, which has nothing yet.
fn init_es_before_stamp(stage: &Stage, rng: &mut Rng) {
    let Some(slot) = find_leader(stage) else { return };
    hold_leader(stage, slot, "etl.stamp_rows", || {
        move_focus(rng);
        init_es(stage);
    });
}

/// Holds a leader back before a statement, and does something meanwhile, which is the last of its segment.
fn hold_leader(stage: &Stage, slot: usize, word: &'static str, meanwhile: impl FnOnce()) {
    let relay = &stage.relays[slot];
    relay.hold_before(word);
    if wait_until(1_500, || relay.is_holding()) {
        meanwhile();
        stage.set_mood(Mood::Nothing);
    }
    relay.release();
}

/// Films are deleted, and no more heard of; only their documents arrive once more, in the term in which they were
/// sent, when the engine has had time to forget that it has deleted them.
fn documents_of_deleted(stage: &Stage, rng: &mut Rng) -> Result<(), Error> {
    /// Longer than an index is searched as it was.
    const FORGOTTEN: Duration = Duration::from_secs(3);
    delete_films(stage, rng)?;
    move_focus(rng);
    thread::sleep(FORGOTTEN);
    let _alone = stage.replays.lock().unwrap();
    deliver_late(stage, 0..100, |request| !contains(request, b"{\"delete\""));
    stage.set_mood(Mood::Nothing);
    Ok(())
}

/// Has some films indexed, and deleted again. Not where somebody else has locked one of them.
pub fn delete_films(stage: &Stage, rng: &mut Rng) -> Result<(), Error> {
    let Some(mut client) = stage.connect() else { return Ok(()) };
    let changes = [films_insert(rng).join("; "), films_delete()];
    let films = focus();
    client.batch_execute("SET lock_timeout = '1s'")?;
    for change in changes {
        client.batch_execute(&change)?;
        wait_until(5_000, || are_settled(&mut client, &films));
    }
    Ok(())
}

/// The leader is killed before a statement, when something of each kind has come that is to be done.
fn kill_before(stage: &Stage, rng: &mut Rng, word: &'static str) {
    let (Some(slot), Some(mut client)) = (find_leader(stage), stage.connect()) else { return };
    let _ = client.batch_execute("SET lock_timeout = '1s'");
    let mut changes = one_of_each(rng);
    rng.shuffle(&mut changes);
    // All at once, so that it is all done in one step; where others are at one of them, once more.
    let changes = changes.join("; ");
    if !(0..3).any(|_| client.batch_execute(&changes).is_ok()) {
        return;
    }
    hold_leader(stage, slot, word, || {
        stage.history.count("leader killed before a statement", word);
        kill(stage, rng, &[slot]);
    });
}
