//! Deletions and documents that are put off, and what goes on beside them.

use std::iter::{once, repeat_n};

use serde_json::json;

use super::{FILM_1, FILMS, MANY, check_count, indexed, stamped, succeed, wait_for_requests};
use crate::support::proxy::{Fault, Proxy, split_operations, with_body};
use crate::support::wait::wait_until;
use crate::support::world::World;

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
