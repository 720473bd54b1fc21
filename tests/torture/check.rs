//! Whether the index is what the database says, and stays it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use postgres::Client;

use crate::rebuilds::find_wrong;
use crate::stage::Stage;
use crate::support::world::World;

/// Within this time everything is to be in step.
const BOUND: Duration = Duration::from_secs(60);

/// So much longer it may take after a server was restarted.
const AFTER_RESTART: Duration = Duration::from_secs(60);

/// What takes longer than this is told with the logs.
const SLOW: Duration = Duration::from_secs(20);

/// What is not in step then, although nothing is left to be done, will never be.
const GIVEN_UP: Duration = Duration::from_secs(10);

/// How everything begins that says that the program has yet to act.
const UNDER_WAY: &str = "under way: ";

/// So long nothing may be sent afterwards.
const STILL: Duration = Duration::from_secs(2);

/// What is left to be done, of any kind, in numbers.
const LEFT: &str = "
    SELECT (SELECT count(*) FROM etl.outbox) AS outbox,
        (SELECT count(*) FROM content.film_work WHERE indexed_at IS NULL OR modified > indexed_at)
            + (SELECT count(*) FROM content.person WHERE indexed_at IS NULL OR modified > indexed_at)
            + (SELECT count(*) FROM content.genre WHERE indexed_at IS NULL OR modified > indexed_at) AS rows,
        (SELECT count(*) FROM content.person WHERE fanned_out_at IS NULL)
            + (SELECT count(*) FROM content.genre WHERE fanned_out_at IS NULL) AS fan_outs,
        (SELECT count(*) FROM etl.rebuild WHERE phase <> 'failed') AS rebuilds,
        (SELECT count(*) FROM etl.rejected) AS rejected";

/// Waits until everything is in step, and makes sure that nothing is sent afterwards. To be called
/// when nobody writes and nothing is broken.
pub fn check(world: &mut World, stage: &Stage) -> Result<(), String> {
    let began = Instant::now();
    let restarted = stage.restarted.swap(false, Ordering::SeqCst);
    let bound = BOUND + if restarted { AFTER_RESTART } else { Duration::ZERO };
    // Since when nothing is left to be done, and nothing is sent.
    let mut still = Instant::now();
    let mut requests = stage.bulk_requests();
    while let Some(difference) = find_difference(world, stage) {
        if stage.bulk_requests() != requests || difference.starts_with(UNDER_WAY) {
            (still, requests) = (Instant::now(), stage.bulk_requests());
        }
        if still.elapsed() > GIVEN_UP {
            return Err(format!("the program believes to be done, but {difference}"));
        }
        if began.elapsed() > bound {
            // The documents say more than what is left to be done.
            let documents = compare(world).unwrap_or_default();
            return Err(format!("after {} s: {difference}\n{documents}", bound.as_secs()));
        }
        stage.children.revive(&stage.history);
        thread::sleep(Duration::from_millis(200));
    }
    if let Some(wrong) = find_wrong(&mut world.client) {
        return Err(wrong);
    }
    let waited = began.elapsed().as_secs_f64();
    if began.elapsed() > SLOW {
        let logs = [0, 1].map(|slot| stage.children.tail(slot, 15)).join("\n---\n");
        eprintln!("that took {waited:.1} s:\n{logs}");
    }
    let before = world.documents();
    let requests = stage.bulk_requests();
    thread::sleep(STILL);
    let after = world.documents();
    if let Some(id) = after.keys().find(|id| before.get(id) != after.get(id)) {
        return Err(format!("row {id} was sent again although unchanged"));
    }
    if stage.bulk_requests() != requests {
        return Err("something was sent although nothing had changed".to_owned());
    }
    if let Some(difference) = find_difference(world, stage) {
        return Err(format!("it did not stay in step: {difference}"));
    }
    stage.history.count("checks", "in step");
    stage.history.add("compared", "documents", after.len() as u64);
    let now = stage.history.now();
    eprintln!("{now:6.1} s: in step after {waited:.1} s, {} documents compared", after.len());
    Ok(())
}

fn find_difference(world: &mut World, stage: &Stage) -> Option<String> {
    if world.client.is_closed() {
        world.client = stage.connect()?;
    }
    find_left(&mut world.client).or_else(|| compare(world))
}

/// What is still to be done.
fn find_left(client: &mut Client) -> Option<String> {
    // A single document that was refused as too large waits for a minute; nobody else is refused.
    let lever = "UPDATE etl.rejected SET retry_at = now() WHERE error_type = 'content_too_long'";
    if let Err(err) = client.batch_execute(lever) {
        return Some(format!("{UNDER_WAY}the database is away: {err}"));
    }
    let row = client.query_one(LEFT, &[]).expect("ask what is left");
    let [outbox, rows, fan_outs, rebuilds, rejected] =
        [0, 1, 2, 3, 4].map(|column| row.get::<_, i64>(column));
    (outbox + rows + fan_outs + rebuilds + rejected > 0).then(|| {
        format!(
            "{UNDER_WAY}{outbox} entries in the outbox, {rows} rows, {fan_outs} fan-outs, {rebuilds} rebuilds, {rejected} rejected"
        )
    })
}

/// The comparison panics while an alias is missing.
fn compare(world: &mut World) -> Option<String> {
    let aliases: Vec<String> = world.kinds.split(',').map(|k| world.engine.alias_of(k)).collect();
    for alias in aliases {
        let answer = catch_unwind(AssertUnwindSafe(|| {
            world.engine.request("POST", &format!("/{alias}/_refresh"), None)
        }));
        match answer {
            Ok((200, answer))
                if answer["_shards"]["failed"] == 0 && answer["_shards"]["successful"] != 0 => {}
            Ok((status, answer)) => {
                return Some(format!("{UNDER_WAY}the index {alias}: {status} {answer}"));
            }
            Err(_) => return Some(format!("{UNDER_WAY}the engine is away")),
        }
    }
    world.difference()
}
