//! What takes no writes until a person does something, or until a term begins anew.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{FILMS, check_count, fail, lines, stamped, succeed};
use crate::support::proxy::{Fault, Proxy};
use crate::support::wait::wait_until;
use crate::support::world::World;

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
