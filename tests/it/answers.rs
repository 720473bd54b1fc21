//! What each answer of the engine means, item by item, and what is done about it. That nothing is
//! lost by answers that never come is in `recovery`.

use std::iter::{once, repeat_n};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::command::Outcome;
use crate::support::engine::own_engine;
use crate::support::proxy::{Fault, Proxy, split_operations, with_body};
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

#[test]
fn an_item_that_is_blocked_is_a_matter_for_a_person_and_no_rejection() {
    for status in [403, 429] {
        let mut world = World::new(&format!("answers_item_{status}"));
        world.sql(FILMS);
        let proxy = Proxy::new(&world.engine.url);
        let start = ["start", "--until-idle", "--elasticsearch-url", &proxy.url];
        proxy.plan([Fault::HalfOfItems(status, "cluster_block_exception")]);
        let line = fail(&world, &start);
        assert!(line.contains("takes no writes (cluster_block_exception: because)"), "{line}");
        assert_eq!(proxy.bulk_requests(), 1);
        assert_eq!(stamped(&mut world), [2, 4, 6]);
        check_count(&mut world, "etl.rejected", 0);
        succeed(&world, &start);
        world.check_in_step();
    }
}

fn set(world: &World, setting: &str, value: &Value) {
    let path = format!("/{}/_settings", world.engine.indices().remove(0));
    world.engine.succeed("PUT", &path, Some(&json!({ setting: value })));
}

#[test]
fn an_index_that_takes_no_writes_is_said_once_and_is_in_step_soon_after_the_block_is_lifted() {
    // Both at the same time, since a pause of ten seconds is waited for.
    let mut runs = ["read_only_allow_delete", "write"].map(|block| {
        let mut world = World::new(&format!("answers_{block}"));
        world.sql(FILMS);
        let running = world.spawn(&["start"]);
        world.wait_in_step();
        set(&world, &format!("index.blocks.{block}"), &json!(true));
        world.sql("UPDATE content.film_work SET title = 'edited' WHERE title = 'Film 1'");
        world.sql("DELETE FROM content.film_work WHERE title = 'Film 2'");
        (block, world, running)
    });
    for (block, world, running) in &mut runs {
        running.wait_until_said(&["ERROR", "takes no writes", "cluster_block_exception"]);
        check_count(world, "etl.rejected", 0);
        check_count(world, "content.film_work WHERE indexed_at IS NULL", 1);
        check_count(world, "etl.outbox WHERE op = 'tombstone'", 1);
        set(world, &format!("index.blocks.{block}"), &Value::Null);
    }
    let lifted = Instant::now();
    for (_, mut world, running) in runs {
        world.wait_in_step();
        assert!(lifted.elapsed() < Duration::from_secs(15), "took {:?}", lifted.elapsed());
        check_count(&mut world, "etl.rejected", 0);
        let outcome = running.end();
        assert_eq!(lines(&outcome, &["ERROR"]).len(), 1, "{outcome}");
    }
}

#[test]
fn a_block_that_is_there_at_the_start_is_said_and_ends_a_run_until_idle() {
    for block in ["write", "read_only_allow_delete"] {
        let mut world = World::new(&format!("answers_start_{block}"));
        world.sql(FILMS);
        set(&world, &format!("index.blocks.{block}"), &json!(true));
        let running = world.spawn(&["start", "--until-idle"]);
        running.wait_until_said(&["etl: ", "takes no writes (cluster_block_exception: "]);
        assert_eq!(running.wait().code, Some(1));
        set(&world, &format!("index.blocks.{block}"), &Value::Null);
        world.sync();
        world.check_in_step();
    }
}

#[test]
fn a_refused_user_ends_a_run_until_idle_with_the_status() {
    let mut world = World::new("answers_user");
    world.sql(FILMS);
    let proxy = Proxy::new(&world.engine.url);
    let start = ["start", "--until-idle", "--elasticsearch-url", &proxy.url];
    for status in [401, 403] {
        proxy.plan([Fault::Status(status)]);
        let before = proxy.bulk_requests();
        let line = fail(&world, &start);
        assert!(line.contains(&format!("/_bulk` with status {status}")), "{line}");
        assert_eq!(proxy.bulk_requests(), before + 1);
        assert!(stamped(&mut world).is_empty());
        check_count(&mut world, "etl.rejected", 0);
    }
    succeed(&world, &start);
    world.check_in_step();
}

#[test]
fn a_user_who_is_refused_for_a_while_is_tried_again_by_a_program_that_has_worked() {
    let mut runs = [401, 403].map(|status| {
        let mut world = World::new(&format!("answers_user_{status}"));
        world.sql(FILMS);
        let proxy = Proxy::new(&world.engine.url);
        let running = world.spawn(&["start", "--elasticsearch-url", &proxy.url]);
        world.wait_in_step();
        wait_until("all is stamped", || stamped(&mut world).len() == 6);
        proxy.plan([Fault::Status(status)]);
        world.sql("UPDATE content.film_work SET title = 'edited' WHERE title = 'Film 1'");
        (status, world, proxy, running)
    });
    for (status, world, _, running) in &mut runs {
        running.wait_until_said(&["ERROR", &format!("with status {status}"), "next attempt in "]);
        check_count(world, "content.film_work WHERE indexed_at IS NULL", 1);
        check_count(world, "etl.rejected", 0);
    }
    for (_, mut world, _proxy, running) in runs {
        world.wait_in_step();
        let outcome = running.end();
        assert_eq!(lines(&outcome, &["ERROR"]).len(), 1, "{outcome}");
    }
}

#[test]
fn an_index_that_is_closed_is_said_once_and_is_in_step_soon_after_it_is_opened() {
    let mut world = World::new("answers_closed");
    world.sql(FILMS);
    let running = world.spawn(&["start"]);
    world.wait_in_step();
    let name = world.engine.indices().remove(0);
    world.engine.succeed("POST", &format!("/{name}/_close"), None);
    world.sql("UPDATE content.film_work SET title = 'edited' WHERE title = 'Film 1'");
    world.sql("DELETE FROM content.film_work WHERE title = 'Film 2'");
    running.wait_until_said(&["ERROR", "takes no writes (index_closed_exception: "]);
    check_count(&mut world, "etl.rejected", 0);
    world.engine.succeed("POST", &format!("/{name}/_open"), None);
    world.wait_in_step();
    check_count(&mut world, "etl.rejected", 0);
    let outcome = running.end();
    assert_eq!(lines(&outcome, &["ERROR"]).len(), 1, "{outcome}");
}

fn remove_alias(world: &World, alias: &str) {
    let index = world.engine.indices().remove(0);
    let remove = json!({ "actions": [{ "remove": { "index": index, "alias": alias } }] });
    world.engine.succeed("POST", "/_aliases", Some(&remove));
}

fn epoch(world: &mut World) -> i64 {
    world.client.query_one("SELECT epoch FROM etl.term", &[]).unwrap().get(0)
}

#[test]
fn a_private_alias_that_somebody_removes_is_made_again_by_a_new_term() {
    let mut world = World::new("answers_private");
    world.sql(FILMS);
    let running = world.spawn(&["start"]);
    world.wait_in_step();
    let before = epoch(&mut world);
    let name = world.engine.indices().remove(0);
    remove_alias(&world, &format!("{name}.W{before}"));
    world.sql("UPDATE content.film_work SET title = 'edited' WHERE title = 'Film 1'");
    world.sql("DELETE FROM content.film_work WHERE title = 'Film 2'");
    world.wait_in_step();
    assert_eq!(epoch(&mut world), before + 1);
    check_count(&mut world, "etl.rejected", 0);
    let outcome = running.end();
    let said = "the private write alias was replaced or removed";
    assert_eq!(lines(&outcome, &["WARN", said]).len(), 1, "{outcome}");
    assert!(lines(&outcome, &["ERROR"]).is_empty(), "{outcome}");
}

#[test]
fn a_public_alias_that_somebody_removes_is_noticed_within_seconds_with_what_to_run() {
    let mut world = World::new("answers_public");
    world.sql(FILMS);
    let running = world.spawn(&["start"]);
    world.wait_in_step();
    let alias = world.engine.alias();
    let name = world.engine.indices().remove(0);
    remove_alias(&world, &alias);
    let removed = Instant::now();
    let said = format!("the alias {alias} was removed from the index {name}: run `etl init-es ");
    running.wait_until_said(&["ERROR", &said]);
    assert!(removed.elapsed() < Duration::from_secs(5), "took {:?}", removed.elapsed());
    world.succeed(&["init-es"]);
    world.wait_in_step();
    running.end();
}

/// Films whose documents the mapping refuses, each in its own way; 1 and 6 stay good.
const BAD_FILMS: &str = "
    UPDATE content.film_work SET title = repeat('x', 40000) WHERE title = 'Film 2';
    UPDATE content.film_work SET rating = 1e300 WHERE title = 'Film 3';
    INSERT INTO content.genre (id, name)
        VALUES ('00000000-0000-4000-8000-000000000001', repeat('x', 40000));
    INSERT INTO content.genre_film_work (id, genre_id, film_work_id)
        SELECT gen_random_uuid(), '00000000-0000-4000-8000-000000000001', id
        FROM content.film_work WHERE title = 'Film 4';
    INSERT INTO content.person (id, full_name)
        SELECT gen_random_uuid(), 'Person ' || n FROM generate_series(1, 10001) AS n;
    INSERT INTO content.person_film_work (id, film_work_id, person_id, role)
        SELECT gen_random_uuid(), f.id, p.id, 'actor'
        FROM content.film_work f, content.person p WHERE f.title = 'Film 5';";

#[test]
fn of_a_batch_the_good_are_stamped_and_each_bad_one_is_recorded_with_its_reason() {
    let mut world = World::new("answers_mapping");
    world.sql(FILMS);
    world.sql(BAD_FILMS);
    let outcome = succeed(&world, &["start", "--until-idle"]);
    assert_eq!(stamped(&mut world), [1, 6]);
    assert_eq!(indexed(&world), [1, 6]);
    let sql = "SELECT right(row_id::text, 4)::int, error_type, reason FROM etl.rejected ORDER BY 1";
    let rows = world.client.query(sql, &[]).unwrap();
    let rejected: Vec<(i32, String, String)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    let reasons = [(2, "title.raw"), (3, "imdb_rating"), (4, "genres"), (5, "nested")];
    assert_eq!(rejected.len(), reasons.len(), "{outcome}");
    for ((film, error_type, reason), (bad, word)) in rejected.iter().zip(reasons) {
        assert_eq!(*film, bad);
        let kinds = [
            "illegal_argument_exception",
            "mapper_parsing_exception",
            "document_parsing_exception",
        ];
        assert!(kinds.contains(&&**error_type), "{film}: {error_type}");
        assert!(reason.contains(word), "{film}: {reason}");
    }

    world.sql(
        "UPDATE content.film_work SET title = 'Film 2', rating = 1 WHERE length(title) > 10;
         UPDATE content.film_work SET rating = 8.5 WHERE rating = 1e300;
         UPDATE content.genre SET name = 'Drama';
         DELETE FROM content.person WHERE full_name <> 'Person 1'",
    );
    world.sync();
    world.check_in_step();
    check_count(&mut world, "etl.rejected", 0);
}

#[test]
fn a_document_that_alone_is_too_large_is_rejected_and_the_others_go_on() {
    let mut world = World::new("answers_413");
    world.sql(FILMS);
    let proxy = Proxy::new(&world.engine.url);
    let start = ["start", "--until-idle", "--batch-size", "1", "--elasticsearch-url", &proxy.url];
    proxy.plan([Fault::Status(413)]);
    succeed(&world, &start);
    assert_eq!(stamped(&mut world), [2, 3, 4, 5, 6]);
    assert_eq!(indexed(&world), [2, 3, 4, 5, 6]);
    let sql = "SELECT row_id::text, error_type, reason FROM etl.rejected";
    let row = world.client.query_one(sql, &[]).unwrap();
    assert_eq!((row.get(0), row.get(1)), (FILM_1, "content_too_long"));
    let reason: String = row.get(2);
    assert!(reason.ends_with(" bytes is larger than the engine takes"), "{reason}");

    world.sql("UPDATE content.film_work SET title = 'short' WHERE title = 'Film 1'");
    succeed(&world, &start);
    world.check_in_step();
    check_count(&mut world, "etl.rejected", 0);
}

/// The largest request of an engine that `dev/servers` started. Others take what they take.
const LIMIT: u64 = 8 << 20;

fn request_limit(world: &World) -> u64 {
    let answer = world.engine.succeed("GET", "/_nodes/http", None);
    let node = answer["nodes"].as_object().and_then(|nodes| nodes.values().next());
    node.expect("a node")["http"]["max_content_length_in_bytes"].as_u64().expect("a limit")
}

#[test]
fn a_request_beyond_the_limit_of_the_engine_is_sent_in_halves_down_to_the_one_that_is_too_large() {
    let mut world = World::new("answers_limit");
    let limit = request_limit(&world);
    if own_engine().is_none() && limit != LIMIT {
        eprintln!("answers_limit: skipped, an engine of the caller takes up to {limit} bytes");
        return;
    }
    assert_eq!(limit, LIMIT);
    // Five that are beyond the limit together, and a third that is so alone.
    world.sql(FILMS);
    world.sql(
        "UPDATE content.film_work SET description = repeat('x', 1900000) WHERE title <> 'Film 3';
         UPDATE content.film_work SET description = repeat('x', 9000000) WHERE title = 'Film 3'",
    );
    let start = ["start", "--until-idle", "--bulk-bytes", "64MiB"];
    let outcome = succeed(&world, &start);
    assert_eq!(stamped(&mut world), [1, 2, 4, 5, 6], "{outcome}");
    assert_eq!(indexed(&world), [1, 2, 4, 5, 6]);
    let sql = "SELECT right(row_id::text, 4)::int, error_type, reason FROM etl.rejected";
    let row = world.client.query_one(sql, &[]).unwrap();
    assert_eq!((row.get(0), row.get(1)), (3, "content_too_long"));
    let reason: &str = row.get(2);
    assert!(reason.starts_with("the document of 9000"), "{reason}");
    // No connection was lost over it.
    assert!(lines(&outcome, &["next attempt in "]).is_empty(), "{outcome}");

    world.sql("UPDATE content.film_work SET description = 'short' WHERE title = 'Film 3'");
    succeed(&world, &start);
    world.check_in_step();
    check_count(&mut world, "etl.rejected", 0);
    assert_eq!(world.sync(), 0);
}

#[test]
fn a_refusal_for_the_size_that_is_lost_with_the_connection_is_asked_for() {
    let mut world = World::new("answers_lost_413");
    world.sql(FILMS);
    world.sql("UPDATE content.film_work SET description = repeat('x', 600000)");
    world.sql(
        "UPDATE content.film_work SET description = repeat('x', 3000000) WHERE title = 'Film 3'",
    );
    let proxy = Proxy::new(&world.engine.url);
    proxy.set_bytes_max(2 << 20);
    let start = ["start", "--until-idle", "--bulk-bytes", "64MiB"];
    let outcome = succeed(&world, &[&start[..], &["--elasticsearch-url", &proxy.url]].concat());
    assert_eq!(stamped(&mut world), [1, 2, 4, 5, 6], "{outcome}");
    assert_eq!(indexed(&world), [1, 2, 4, 5, 6]);
    check_count(&mut world, "etl.rejected WHERE error_type = 'content_too_long'", 1);
    assert!(lines(&outcome, &["next attempt in "]).is_empty(), "{outcome}");
    // Broken off and asked for: all, 1 to 3, 2 and 3, 3. Taken: 1, 2, and 4 to 6.
    assert_eq!(proxy.bulk_requests(), 4 * 2 + 3);
}

#[test]
fn a_deletion_that_is_put_off_stays_in_the_outbox_until_it_is_acknowledged() {
    let mut world = World::new("answers_delete");
    world.sql(FILMS);
    world.sync();
    let proxy = Proxy::new(&world.engine.url);
    let busy = Fault::HalfOfItems(429, "es_rejected_execution_exception");
    proxy.plan(once(busy).chain(repeat_n(Fault::Status(503), MANY)));
    world.sql("DELETE FROM content.film_work");
    let running = world.spawn(&["start", "--until-idle", "--elasticsearch-url", &proxy.url]);
    wait_for_requests(&proxy, 2);
    let sql = "SELECT right(row_id::text, 4) FROM etl.outbox WHERE op = 'tombstone' ORDER BY 1";
    let rows = world.client.query(sql, &[]).unwrap();
    let left: Vec<u128> = rows.iter().map(|row| row.get::<_, &str>(0).parse().unwrap()).collect();
    assert_eq!(left.len(), 3, "the others are forgotten at once");
    assert_eq!(indexed(&world), left);
    proxy.plan([]);
    let outcome = running.wait();
    assert_eq!(outcome.code, Some(0), "{outcome}");
    world.check_in_step();
    check_count(&mut world, "etl.outbox", 0);
}

#[test]
fn the_deletion_of_what_was_never_indexed_is_acknowledged() {
    let mut world = World::new("answers_delete_404");
    world.sql(FILMS);
    world.sql("DELETE FROM content.film_work WHERE title = 'Film 1'");
    check_count(&mut world, "etl.outbox WHERE op = 'tombstone'", 1);
    let proxy = Proxy::new(&world.engine.url);
    let outcome = succeed(&world, &["start", "--until-idle", "--elasticsearch-url", &proxy.url]);
    assert!(outcome.stderr.contains("6 documents were sent"), "5 films, 1 deletion\n{outcome}");
    assert_eq!(proxy.bulk_requests(), 2);
    world.check_in_step();
    check_count(&mut world, "etl.outbox", 0);
}

#[test]
fn a_document_that_is_put_off_keeps_no_deletion_from_its_turn() {
    let mut world = World::new("answers_beside");
    world.sql(FILMS);
    world.sync();
    let proxy = Proxy::new(&world.engine.url);
    let busy = Fault::Documents(429, "es_rejected_execution_exception");
    proxy.plan(repeat_n(busy, MANY));
    world.sql("UPDATE content.film_work SET title = 'edited' WHERE title = 'Film 1'");
    world.sql("DELETE FROM content.film_work WHERE title = 'Film 2'");
    let running = world.spawn(&["start", "--until-idle", "--elasticsearch-url", &proxy.url]);
    world.wait_for_row("SELECT WHERE NOT EXISTS (SELECT FROM etl.outbox)");
    assert_eq!(stamped(&mut world), [3, 4, 5, 6]);
    proxy.plan([]);
    assert_eq!(running.wait().code, Some(0));
    world.check_in_step();
}

#[test]
fn a_sweep_that_is_put_off_begins_anew() {
    let mut world = World::new("answers_sweep");
    world.sql(FILMS);
    world.sync();
    let proxy = Proxy::new(&world.engine.url);
    for fault in [Fault::HalfOfItems(429, "busy"), Fault::HalfOfItems(418, "teapot")] {
        let before = proxy.bulk_requests();
        proxy.plan(once(fault).chain(repeat_n(Fault::Status(503), MANY)));
        world.sql("TRUNCATE content.film_work CASCADE");
        let running = world.spawn(&["start", "--until-idle", "--elasticsearch-url", &proxy.url]);
        wait_for_requests(&proxy, before + 2);
        check_count(&mut world, "etl.outbox WHERE op = 'purge' AND kind = 'film_work'", 1);
        assert_eq!(indexed(&world).len(), 3);
        proxy.plan([]);
        let outcome = running.wait();
        assert_eq!(outcome.code, Some(0), "{outcome}");
        world.check_in_step();
        check_count(&mut world, "etl.outbox", 0);
        world.sql(FILMS);
        world.sync();
    }
}

/// Lets the engine refuse film 1, and it alone, with a status that is no verdict on the document: a
/// conflict that names no version.
fn spoil_film_1(request: &[u8]) -> Vec<u8> {
    let (head, operations) = split_operations(request);
    let spoilt = operations.into_iter().map(|operation| {
        let text = String::from_utf8(operation).expect("a document of text");
        let (action, document) = text.split_once('\n').expect("an action line");
        if action.contains(FILM_1) {
            let action =
                json!({ "index": { "_id": FILM_1, "if_seq_no": 9_999, "if_primary_term": 9 } });
            return format!("{action}\n{document}");
        }
        text
    });
    with_body(&head, spoilt.collect::<String>().as_bytes())
}

#[test]
fn a_document_that_is_never_accepted_keeps_no_other_from_its_turn() {
    let mut world = World::new("answers_head");
    world.sql(FILMS);
    let proxy = Proxy::new(&world.engine.url);
    proxy.rewrite(spoil_film_1);
    let running = world.spawn(&["start", "--batch-size", "2", "--elasticsearch-url", &proxy.url]);
    wait_until("the others are stamped", || stamped(&mut world) == [2, 3, 4, 5, 6]);
    world.sql("UPDATE content.film_work SET title = 'edited' WHERE title = 'Film 2'");
    wait_until("an edit is stamped", || stamped(&mut world) == [2, 3, 4, 5, 6]);
    check_count(&mut world, "etl.rejected", 0);
    let outcome = running.end();
    assert!(outcome.stderr.contains("answered with status 409 ("), "{outcome}");
    world.sync();
    world.check_in_step();
}
