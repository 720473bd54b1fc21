//! The epoch, the private alias and the versions, each with the other two switched off.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::{FILM_1, FILM_2, FILMS, start_leader, wait_until_nothing_is_pending};
use crate::support::proxy::{Fault, Proxy, split_operations, with_body};
use crate::support::wait::wait_until;
use crate::support::world::World;

/// Replaces the functions that ask for the epoch by ones that do not.
fn switch_off_the_epoch(world: &mut World) {
    let functions = [("etl.lock_as_read", "t.epoch = $1"), ("etl.expand_fan_outs", "epoch = $1")];
    for (function, condition) in functions {
        let sql = "SELECT pg_get_functiondef($1::text::regproc)";
        let definition: String = world.client.query_one(sql, &[&function]).unwrap().get(0);
        let without = definition.replace(condition, "true");
        assert_ne!(without, definition);
        world.sql(&without);
    }
}

/// Sends a bulk request to the index itself.
fn without_alias(request: &[u8]) -> Vec<u8> {
    let (head, operations) = split_operations(request);
    let (start, rest) = head.split_once(".W").expect("a private alias");
    let (_, rest) = rest.split_once("/_bulk?require_alias=true&").expect("an alias is required");
    with_body(&format!("{start}/_bulk?{rest}"), &operations.concat())
}

/// Takes the versions out of a bulk request.
fn without_versions(request: &[u8]) -> Vec<u8> {
    let (head, operations) = split_operations(request);
    let operations: Vec<Vec<u8>> =
        operations.iter().map(|operation| unversioned(operation)).collect();
    with_body(&head, &operations.concat())
}

fn unversioned(operation: &[u8]) -> Vec<u8> {
    let end = operation.iter().position(|byte| *byte == b'\n').expect("an action line");
    let mut action: Value = serde_json::from_slice(&operation[..end]).expect("an action");
    let (_, of) = action.as_object_mut().and_then(|action| action.iter_mut().next()).unwrap();
    assert!(of["version"].is_number() && of["version_type"] == "external_gte", "{of}");
    *of = json!({ "_id": of["_id"] });
    [action.to_string().as_bytes(), &operation[end..]].concat()
}

fn without_alias_and_versions(request: &[u8]) -> Vec<u8> {
    without_alias(&without_versions(request))
}

/// A bulk request that has not arrived when its sender is gone, and that is out of date since: of its
/// two films the one was edited and the other deleted, and another process has seen to that.
struct Late {
    world: World,
    proxy: Proxy,
    request: Vec<u8>,
}

impl Late {
    fn new(name: &str) -> Self {
        let mut world = World::new(name);
        world.sql(FILMS);
        switch_off_the_epoch(&mut world);
        let proxy = Proxy::new(&world.engine.url);
        let former = start_leader(&mut world, &["--elasticsearch-url", &proxy.url]);
        let sent = proxy.bulk_requests() + 1;
        proxy.plan([Fault::Hang]);
        world.sql(&format!(
            "UPDATE content.film_work SET title = 'old' WHERE id IN ('{FILM_1}', '{FILM_2}')"
        ));
        wait_until("a request is in flight", || proxy.bulk_requests() == sent);
        former.signal("-KILL");
        let _ = former.wait();
        world.sql(&format!(
            "UPDATE content.film_work SET title = 'new' WHERE id = '{FILM_1}';
             DELETE FROM content.film_work WHERE id = '{FILM_2}'"
        ));
        assert_eq!(world.sync(), 2);
        world.check_in_step();
        let request = proxy.recorded().pop().expect("a request");
        Self { world, proxy, request }
    }

    /// Lets the request arrive, changed in this way. Returns the status of each film.
    fn deliver(&self, change: fn(&[u8]) -> Vec<u8>) -> [Value; 2] {
        let answer = self.proxy.deliver(&change(&self.request)).expect("an answer");
        let body = answer.find('{').zip(answer.rfind('}')).expect("JSON");
        let mut body: Value = serde_json::from_str(&answer[body.0..=body.1]).expect("JSON");
        let items = body["items"].take();
        assert_eq!(items.as_array().map(Vec::len), Some(2), "{items}");
        [0, 1].map(|place| items[place]["index"]["status"].clone())
    }

    /// Without any of the three the same request does harm, so it was the one that was tested which
    /// has kept it from that.
    #[track_caller]
    fn check_harm_without_any(mut self) {
        assert_eq!(self.deliver(without_alias_and_versions), [200, 201]);
        assert!(self.world.difference().is_some());
    }
}

#[test]
fn the_private_alias_alone_keeps_a_late_request_from_the_index() {
    let mut late = Late::new("rivals_alias_alone");
    assert_eq!(late.deliver(without_versions), [404, 404]);
    late.world.check_in_step();
    assert_eq!(late.world.engine.indices().len(), 1, "and makes none of the alias's name");
    late.check_harm_without_any();
}

#[test]
fn the_versions_alone_keep_a_late_request_from_the_documents() {
    let mut late = Late::new("rivals_versions_alone");
    assert_eq!(late.deliver(without_alias), [409, 409]);
    late.world.check_in_step();
    late.check_harm_without_any();
}

#[test]
fn the_epoch_alone_keeps_what_a_replaced_index_has_acknowledged_from_being_stamped() {
    let mut world = World::new("rivals_epoch_alone");
    let proxy = Proxy::new(&world.engine.url);
    proxy.rewrite(without_alias_and_versions);
    let running = start_leader(&mut world, &["--elasticsearch-url", &proxy.url]);
    proxy.plan([Fault::HoldAnswer]);
    world.sql(FILMS);
    wait_until("the engine has the films", || world.engine.documents().len() == 6);
    // It would see that the epoch has moved.
    running.signal("-STOP");
    world.succeed(&["init-es"]);

    // It finds the answer, and no engine for what it does next.
    proxy.set_up(false);
    proxy.release();
    thread::sleep(Duration::from_millis(300));
    running.signal("-CONT");
    running.wait_until_said(&["next attempt in"]);
    let stamped = "SELECT FROM content.film_work WHERE indexed_at IS NOT NULL";
    assert_eq!(world.client.execute(stamped, &[]).unwrap(), 0, "another index has them");
    proxy.set_up(true);
    wait_until_nothing_is_pending(&mut world);
    running.end();
}

// Beside `etl init-es` ------------------------------------------------------------------------

#[test]
fn a_request_that_arrives_after_init_es_is_refused_and_its_sender_fills_the_new_index() {
    let mut world = World::new("rivals_init_es");
    world.sql(FILMS);
    let proxy = Proxy::new(&world.engine.url);
    let running = start_leader(&mut world, &["--elasticsearch-url", &proxy.url]);
    let sent = proxy.bulk_requests() + 1;
    proxy.plan([Fault::HoldRequest]);
    world.sql("UPDATE content.film_work SET title = 'edited'");
    wait_until("a request is in flight", || proxy.bulk_requests() == sent);
    world.succeed(&["init-es"]);
    let indices = world.engine.indices();
    // The sender has seen that the epoch moved, and waits for no answer.
    wait_until_nothing_is_pending(&mut world);
    proxy.release();
    thread::sleep(Duration::from_secs(1));
    running.end();
    assert_eq!(world.engine.indices(), indices, "an index of the alias's name would be one more");
    world.check_in_step();
    assert_eq!(world.sync(), 0);
}
