//! What each answer of the engine means, item by item, and what is done about it. That nothing is
//! lost by answers that never come is in `recovery`.

mod blocks; // what takes no writes until something is done
mod refusals; // documents that are refused, requests that are too large
mod turns; // what is put off, and what goes on beside it

use std::iter::{once, repeat_n};

use crate::support::command::Outcome;
use crate::support::proxy::{Fault, Proxy};
use crate::support::wait::wait_until;
use crate::support::world::World;

const FILMS: &str = "INSERT INTO content.film_work (id, title)
    SELECT ('00000000-0000-4000-9000-' || lpad(n::text, 12, '0'))::uuid, 'Film ' || n
    FROM generate_series(1, 6) AS n;";

/// The place of film 1 in a batch of all is the first.
const FILM_1: &str = "00000000-0000-4000-9000-000000000001";

/// More than a program in a hurry sends before the test has looked.
const MANY: usize = 1_000;

/// The numbers of the films that are stamped.
fn stamped(world: &mut World) -> Vec<i32> {
    let sql = "SELECT right(id::text, 4)::int FROM content.film_work
               WHERE indexed_at IS NOT NULL ORDER BY 1";
    world.client.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

/// The numbers of the films that have a document.
fn indexed(world: &World) -> Vec<u128> {
    world.engine.documents().keys().map(|id| id.as_u128() & 0xF).collect()
}

#[track_caller]
fn check_count(world: &mut World, rows: &str, expected: i64) {
    let sql = format!("SELECT count(*) FROM {rows}");
    let count: i64 = world.client.query_one(&sql, &[]).unwrap().get(0);
    assert_eq!(count, expected, "{rows}");
}

#[track_caller]
fn wait_for_requests(proxy: &Proxy, count: usize) {
    wait_until("enough bulk requests came", || proxy.bulk_requests() >= count);
}

/// Runs the program, which is to end by itself with exit code 0 within a minute.
#[track_caller]
fn succeed(world: &World, args: &[&str]) -> Outcome {
    let outcome = world.spawn(args).wait();
    assert_eq!(outcome.code, Some(0), "{outcome}");
    outcome
}

/// Runs the program, which is to end by itself with exit code 1 and one line; returns this line.
#[track_caller]
fn fail(world: &World, args: &[&str]) -> String {
    let outcome = world.spawn(args).wait();
    assert_eq!(outcome.code, Some(1), "{outcome}");
    let said: Vec<&str> = outcome.stderr.lines().filter(|line| line.starts_with("etl: ")).collect();
    assert_eq!(said.len(), 1, "{outcome}");
    said[0].to_owned()
}

/// The lines that have all of these words.
fn lines<'a>(outcome: &'a Outcome, words: &[&str]) -> Vec<&'a str> {
    let has_all = |line: &&str| words.iter().all(|word| line.contains(word));
    outcome.stderr.lines().filter(has_all).collect()
}

/// Has every bulk request answered in a way that says nothing of the single documents.
#[track_caller]
fn check_no_success(fault: Fault, said: &str) {
    let mut world = World::new(&format!("answers_{fault:?}").to_lowercase());
    world.sql(FILMS);
    let proxy = Proxy::new(&world.engine.url);
    let start = ["start", "--until-idle", "--batch-size", "2", "--elasticsearch-url", &proxy.url];
    proxy.plan(repeat_n(fault, MANY));
    let running = world.spawn(&start);
    // The fourth is sent when the program is done with the third.
    wait_for_requests(&proxy, 4);
    assert!(stamped(&mut world).is_empty());
    proxy.plan([]);
    let outcome = running.wait();
    assert_eq!(outcome.code, Some(0), "{outcome}");
    world.check_in_step();
    check_count(&mut world, "etl.rejected", 0);
    assert_eq!(lines(&outcome, &["WARN", said]).len(), 1, "the same is told once\n{outcome}");

    // The same for deletions.
    let before = proxy.bulk_requests();
    proxy.plan(repeat_n(fault, MANY));
    let running = world.spawn(&start);
    world.sql("DELETE FROM content.film_work WHERE title IN ('Film 1', 'Film 2')");
    wait_for_requests(&proxy, before + 3);
    check_count(&mut world, "etl.outbox WHERE op = 'tombstone'", 2);
    proxy.plan([]);
    assert_eq!(running.wait().code, Some(0));
    world.check_in_step();
    check_count(&mut world, "etl.outbox", 0);
}

#[test]
fn an_answer_with_too_few_items_is_no_success() {
    check_no_success(Fault::TooFewItems, "2 operations was answered with 1 items");
}

#[test]
fn an_answer_that_is_not_json_is_no_success() {
    check_no_success(Fault::NotJson, "could not read the engine's answer to `POST /");
}

/// Has every second film of a batch refused for what is no fault of its own.
#[track_caller]
fn check_half_is_put_off(status: u16, kind: &'static str, said: &str) {
    let mut world = World::new(&format!("answers_{status}_{}", &kind[..5]));
    world.sql(FILMS);
    let proxy = Proxy::new(&world.engine.url);
    // The second request comes when the program is done with the first, and changes nothing.
    proxy.plan(once(Fault::HalfOfItems(status, kind)).chain(repeat_n(Fault::Status(503), MANY)));
    let running = world.spawn(&["start", "--until-idle", "--elasticsearch-url", &proxy.url]);
    wait_for_requests(&proxy, 2);
    assert_eq!(stamped(&mut world), [2, 4, 6]);
    assert_eq!(indexed(&world), [2, 4, 6]);
    check_count(&mut world, "etl.rejected", 0);
    check_count(&mut world, "content.film_work WHERE rejected_at IS NOT NULL", 0);
    proxy.plan([]);
    let outcome = running.wait();
    assert_eq!(outcome.code, Some(0), "{outcome}");
    world.check_in_step();
    assert_eq!(stamped(&mut world).len(), 6);
    check_count(&mut world, "etl.rejected", 0);
    assert_eq!(lines(&outcome, &["WARN", said, kind]).len(), 1, "{outcome}");
    assert_eq!(lines(&outcome, &[kind]).len(), 1, "{outcome}");
}

#[test]
fn items_of_a_busy_engine_are_sent_again_and_the_others_are_stamped_at_once() {
    let said = "the engine is busy: it put off 3 documents (";
    check_half_is_put_off(429, "es_rejected_execution_exception", said);
    check_half_is_put_off(429, "circuit_breaking_exception", said);
    check_half_is_put_off(503, "unavailable_shards_exception", said);
}

#[test]
fn a_cluster_without_a_master_is_waited_for_and_not_taken_for_a_block() {
    let said = "the engine is busy: it put off 3 documents (";
    check_half_is_put_off(503, "cluster_block_exception", said);
}

#[test]
fn a_conflict_that_names_no_version_is_neither_a_success_nor_a_rejection() {
    check_half_is_put_off(409, "version_conflict_engine_exception", "answered with status 409 (");
}

#[test]
fn an_item_with_a_status_that_nobody_knows_is_no_success() {
    check_half_is_put_off(418, "teapot", "answered with status 418 (");
}
