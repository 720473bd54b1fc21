//! One process leads after another, and both believe that they do.

use std::thread;
use std::time::Duration;

use fastrand::Rng;
use postgres::Error;

use crate::changes::{focus, move_focus};
use crate::films::{are_settled, films_delete_ahead, films_insert};
use crate::processes::find_leader;
use crate::stage::{Mood, Stage};
use crate::statements::Reading;
use crate::support::proxy::{Fault, Proxy};

/// A leader that is about to send is held back, and its session ends without its knowing. Another process
/// takes the lead and goes on with the same films; then the first one sends.
pub fn usurp(stage: &Stage, rng: &mut Rng, send: fn(&Stage, &mut Rng, usize)) {
    if let Some(slot) = find_leader(stage) {
        send(stage, rng, slot);
        stage.relays[slot].release();
    }
}

pub fn documents_late(stage: &Stage, rng: &mut Rng, slot: usize) {
    let rival = &stage.proxies[1 - slot];
    stage.relays[slot].hold(Reading::Documents);
    send_late(stage, rng, slot, Reading::Documents, |rng| is_under_way(stage, rng, rival));
}

pub fn deletions_late(stage: &Stage, rng: &mut Rng, slot: usize) {
    let rival = &stage.proxies[1 - slot];
    stage.relays[slot].hold(Reading::Deletions);
    send_late(stage, rng, slot, Reading::Deletions, |rng| {
        if rng.bool() { is_under_way(stage, rng, rival) } else { has_done_all(stage, rng, rival) }
    });
}

/// Films are deleted by the leader that has lost its lead when they are back and indexed again. Nothing is done where
/// somebody else has locked one of them.
pub fn delete_late(stage: &Stage, rng: &mut Rng, slot: usize) -> Result<(), Error> {
    let Some(mut client) = stage.connect() else { return Ok(()) };
    // Their rows are older than their deletion when they are back.
    let [insert, delete] = [films_insert(rng), films_delete_ahead(rng)].map(|sql| sql.join("; "));
    let is_settled = format!(
        "SELECT FROM content.film_work f WHERE id IN ({}) AND indexed_at IS NOT NULL
            AND NOT EXISTS (SELECT FROM etl.outbox WHERE row_id = f.id) LIMIT 1",
        focus().join(", ")
    );
    client.batch_execute("SET lock_timeout = '1s'")?;
    client.batch_execute(&insert)?;
    stage.relays[slot].hold(Reading::Deletions);
    client.batch_execute(&delete)?;
    send_late(stage, rng, slot, Reading::Deletions, |_| {
        client.batch_execute(&insert).is_ok()
            && wait_until(6_000, || {
                client.query_opt(&is_settled, &[]).is_ok_and(|row| row.is_some())
            })
    });
    Ok(())
}

/// The leader has read the people of films and not yet their genres, when it loses its lead and the people are gone.
/// Its rival touches the films for that and indexes them, before the leader reads on. Locked films as above.
pub fn links_late(stage: &Stage, rng: &mut Rng, slot: usize) -> Result<(), Error> {
    let Some(mut client) = stage.connect() else { return Ok(()) };
    client.batch_execute("SET lock_timeout = '1s'")?;
    stage.relays[slot].hold_before("FROM content.genre_film_work");
    client.batch_execute(
        "UPDATE content.film_work SET title = title || '!' WHERE id IN
            (SELECT film_work_id FROM content.person_film_work ORDER BY random() LIMIT 5)",
    )?;
    send_late(stage, rng, slot, Reading::Documents, |_| {
        let pending = "SELECT coalesce(array_agg(quote_literal(id)), '{}') FROM content.film_work WHERE indexed_at IS NULL";
        let Ok(films) = client.query_one(pending, &[]).map(|row| row.get::<_, Vec<String>>(0))
        else {
            return false;
        };
        let delete = format!(
            "DELETE FROM content.person_film_work WHERE film_work_id = ANY (ARRAY[{}]::uuid[])",
            films.join(", ")
        );
        client.batch_execute(&delete).is_ok()
            && wait_until(6_000, || are_settled(&mut client, &films))
    });
    Ok(())
}

/// Lets a leader that is held back, or about to be, send what it has read when it has lost its lead, and its rival
/// has done its part.
fn send_late(
    stage: &Stage,
    rng: &mut Rng,
    slot: usize,
    reading: Reading,
    has_rival_sent: impl FnOnce(&mut Rng) -> bool,
) {
    let (relay, proxy) = (&stage.relays[slot], &stage.proxies[slot]);
    if !wait_until(1_500, || relay.is_holding()) {
        return;
    }
    // It believes in its lead for three seconds more after it is let go.
    relay.cut_lead();
    if !has_rival_sent(rng) {
        return;
    }
    // What is sent now is not to be put right by the next change of the same films.
    move_focus(rng);
    let requests = proxy.bulk_requests();
    relay.release();
    if wait_until(300, || proxy.bulk_requests() > requests) {
        stage.history.count("sent after the lead was lost", &format!("{reading:?}"));
        stage.set_mood(Mood::Nothing);
    }
}

/// Waits until the request of the rival is carried out, and its answer under way.
fn is_under_way(stage: &Stage, rng: &mut Rng, rival: &Proxy) -> bool {
    rival.plan([Fault::SlowAnswer(Duration::from_secs(2))]);
    let requests = rival.bulk_requests();
    let is_sent = wait_until(6_000, || rival.bulk_requests() > requests);
    stage.pause(rng, 30, 300);
    is_sent
}

/// Waits until some more requests of the rival have been answered.
fn has_done_all(stage: &Stage, rng: &mut Rng, rival: &Proxy) -> bool {
    let requests = rival.bulk_requests();
    let is_sent = wait_until(6_000, || rival.bulk_requests() > requests);
    if is_sent {
        wait_until(1_000, || rival.bulk_requests() > requests + 2);
    }
    stage.pause(rng, 30, 300);
    is_sent
}

/// Waits so many milliseconds at most. Returns whether it came to be.
pub fn wait_until(limit_ms: u64, mut condition: impl FnMut() -> bool) -> bool {
    (0..limit_ms / 10).any(|_| {
        thread::sleep(Duration::from_millis(10));
        condition()
    })
}
