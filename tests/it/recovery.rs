//! What goes wrong between reading and stamp, and that nothing is lost by it.

use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::support::proxy::{Fault, Proxy};
use crate::support::world::World;

const FILMS: &str = "
    INSERT INTO content.genre (id, name) VALUES ('00000000-0000-4000-8000-000000000001', 'Drama');
    INSERT INTO content.film_work (id, title)
        SELECT ('00000000-0000-4000-9000-' || lpad(n::text, 12, '0'))::uuid, 'Film ' || n FROM generate_series(1, 6) AS n;
    INSERT INTO content.genre_film_work (id, genre_id, film_work_id)
        SELECT gen_random_uuid(), '00000000-0000-4000-8000-000000000001', id FROM content.film_work;";

const FILM_1: &str = "00000000-0000-4000-9000-000000000001";

/// Breaks each of the bulk requests of a run in the given way. Afterwards everything is right.
///
/// The stamp is written last: with the stamp before the request, the documents of the broken one
/// are missing here.
#[track_caller]
fn check_nothing_is_lost(fault: Fault) {
    let mut world = World::new(&format!("lost_{fault:?}").to_lowercase().replace(['(', ')'], "_"));
    world.sql(FILMS);
    let proxy = Proxy::new(&world.engine.url);
    let start = ["start", "--until-idle", "--batch-size", "2", "--elasticsearch-url", &proxy.url];
    for broken in 0..3 {
        proxy.plan(std::iter::repeat_n(Fault::Pass, broken).chain([fault]));
        // Killed at the failure: what a new process finds in the database must be enough.
        let before = proxy.bulk_requests();
        let running = world.spawn(&start);
        wait_for_requests(&proxy, before + broken + 1);
        running.signal("-KILL");
        let _ = running.wait();
        proxy.plan([]);
        world.succeed(&start);
        world.check_in_step();
        // And by itself: the same process goes on.
        world.sql("UPDATE content.film_work SET title = title || '!'");
        proxy.plan(std::iter::repeat_n(Fault::Pass, broken).chain([fault]));
        world.succeed(&start);
        world.check_in_step();
        world.sql("UPDATE content.film_work SET title = title || '?'");
    }
}

fn wait_for_requests(proxy: &Proxy, count: usize) {
    for _ in 0..500 {
        if proxy.bulk_requests() >= count {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("no bulk request within 5 s");
}

#[test]
fn a_request_that_never_arrives_loses_nothing() {
    check_nothing_is_lost(Fault::DropRequest);
}

#[test]
fn an_answer_that_never_arrives_loses_nothing() {
    check_nothing_is_lost(Fault::DropAnswer);
}

#[test]
fn an_answer_that_is_cut_loses_nothing() {
    check_nothing_is_lost(Fault::CutAnswer);
}

#[test]
fn an_engine_that_is_busy_loses_nothing() {
    check_nothing_is_lost(Fault::Status(429));
    check_nothing_is_lost(Fault::Status(503));
}

#[test]
fn a_request_that_is_too_large_goes_in_parts() {
    let mut world = World::new("recovery_413");
    world.sql(FILMS);
    let proxy = Proxy::new(&world.engine.url);
    proxy.plan([Fault::Status(413), Fault::Status(413), Fault::Pass, Fault::Status(413)]);
    world.succeed(&["start", "--until-idle", "--elasticsearch-url", &proxy.url]);
    world.check_in_step();
    let requests = proxy.bulk_requests();

    proxy.plan([]);
    world.sql("UPDATE content.film_work SET description = repeat('long ', 300)");
    world.succeed(&[
        "start",
        "--until-idle",
        "--bulk-bytes",
        "2KiB",
        "--elasticsearch-url",
        &proxy.url,
    ]);
    world.check_in_step();
    assert!(proxy.bulk_requests() - requests >= 3, "as many requests as the bytes need");
}

#[test]
fn a_document_that_somebody_wrote_with_a_far_higher_version_is_overcome() {
    let mut world = World::new("recovery_conflict");
    world.sql(FILMS);
    world.sync();
    let name = world.engine.indices().remove(0);
    let far = 4_000_000_000_000_000_u64;
    let path = format!("/{name}/_doc/{FILM_1}?version={far}&version_type=external");
    world.engine.succeed("PUT", &path, Some(&json!({ "id": FILM_1, "title": "by hand" })));
    world.sql(&format!("UPDATE content.film_work SET title = 'edited' WHERE id = '{FILM_1}'"));
    world.sync();
    world.check_in_step();

    // Deleted by hand, with a version that only the reason of the conflict tells.
    let far = far + 1_000_000;
    world.engine.succeed(
        "DELETE",
        &format!("/{name}/_doc/{FILM_1}?version={far}&version_type=external"),
        None,
    );
    world
        .sql(&format!("UPDATE content.film_work SET title = 'edited again' WHERE id = '{FILM_1}'"));
    world.sync();
    world.check_in_step();

    let far = far + 1_000_000;
    let path = format!("/{name}/_doc/{FILM_1}?version={far}&version_type=external");
    world.engine.succeed("PUT", &path, Some(&json!({ "id": FILM_1, "title": "by hand" })));
    world.sql(&format!("DELETE FROM content.film_work WHERE id = '{FILM_1}'"));
    world.sync();
    world.check_in_step();
    assert_eq!(world.sync(), 0);
}

#[test]
fn a_film_that_a_writer_holds_is_sent_once_and_stamped_when_it_is_free() {
    let mut world = World::new("recovery_locked");
    world.sql(FILMS);
    let mut writer = world.database.client();
    let mut transaction = writer.transaction().unwrap();
    transaction
        .batch_execute(&format!("SELECT FROM content.film_work WHERE id = '{FILM_1}' FOR UPDATE"))
        .unwrap();
    let running = world.spawn(&["start"]);
    // The link that touches it is in the outbox, which waits for the row; the other films do not.
    for _ in 0..200 {
        if world.engine.documents().len() == 6 {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    let sent = world.engine.documents();
    thread::sleep(Duration::from_secs(2));
    assert_eq!(world.engine.documents(), sent, "it is not sent again while it is unchanged");
    transaction.rollback().unwrap();
    world.wait_in_step();
    for _ in 0..100 {
        let pending = "SELECT FROM content.film_work WHERE indexed_at IS NULL";
        if world.client.query(pending, &[]).unwrap().is_empty() {
            running.end();
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("it is never stamped");
}

#[test]
fn a_film_that_a_writer_holds_keeps_no_other_from_being_touched() {
    let mut world = World::new("recovery_head");
    world.sql(FILMS);
    world.sync();
    let mut writer = world.database.client();
    let mut transaction = writer.transaction().unwrap();
    let lock = format!("SELECT FROM content.film_work WHERE id = '{FILM_1}' FOR UPDATE");
    transaction.batch_execute(&lock).unwrap();
    // More entries of the locked film than one chunk takes, and behind them one of another.
    for _ in 0..2_500 {
        world.sql("INSERT INTO etl.outbox (op, kind, row_id) VALUES ('touch', 'film_work', '00000000-0000-4000-9000-000000000001')");
    }
    world.sql("DELETE FROM content.genre_film_work WHERE film_work_id = '00000000-0000-4000-9000-000000000002'");
    let running = world.spawn(&["start"]);
    world.wait_in_step();
    transaction.rollback().unwrap();
    world.wait_for_row("SELECT WHERE NOT EXISTS (SELECT FROM etl.outbox)");
    running.end();
    world.check_in_step();
}

#[test]
fn a_second_index_under_the_private_alias_is_put_right() {
    let mut world = World::new("recovery_two_indices");
    world.sql(FILMS);
    let running = world.spawn(&["start"]);
    world.wait_in_step();
    let name = world.engine.indices().remove(0);
    let epoch: i64 = world.client.query_one("SELECT epoch FROM etl.term", &[]).unwrap().get(0);
    let copy = json!({ "aliases": { format!("{name}.W{epoch}"): {} } });
    world.engine.succeed("PUT", &format!("/{}copy", world.engine.prefix), Some(&copy));
    world.sql("UPDATE content.film_work SET title = 'edited'");
    world.wait_in_step();
    assert!(world.client.query("SELECT FROM etl.rejected", &[]).unwrap().is_empty());
    running.end();
}

#[test]
fn a_truncated_table_is_swept_whatever_the_size_of_a_batch_and_whatever_else_is_in_the_index() {
    let mut world = World::new("recovery_sweep");
    world.sql(FILMS);
    world.sql(
        "INSERT INTO content.film_work (id, title)
               SELECT gen_random_uuid(), 'Film' FROM generate_series(1, 2500)",
    );
    world.sync();
    let name = world.engine.indices().remove(0);
    let foreign = json!({ "id": "no-film" });
    world.engine.succeed("PUT", &format!("/{name}/_doc/no-film"), Some(&foreign));
    world.sql("TRUNCATE content.film_work CASCADE");
    world.succeed(&["start", "--until-idle", "--batch-size", "20000"]);
    world.engine.succeed("DELETE", &format!("/{name}/_doc/no-film"), None);
    world.check_in_step();
    assert!(world.engine.documents().is_empty());
}

#[test]
fn a_delete_through_a_private_alias_that_was_removed_is_not_taken_for_done() {
    let mut world = World::new("recovery_alias_gone");
    world.sql(FILMS);
    let running = world.spawn(&["start"]);
    world.wait_in_step();
    let name = world.engine.indices().remove(0);
    let epoch: i64 = world.client.query_one("SELECT epoch FROM etl.term", &[]).unwrap().get(0);
    let remove = json!({ "remove": { "index": name, "alias": format!("{name}.W{epoch}") } });
    world.engine.succeed("POST", "/_aliases", Some(&json!({ "actions": [remove] })));
    world.sql(&format!("DELETE FROM content.film_work WHERE id = '{FILM_1}'"));
    world.wait_in_step();
    assert_eq!(world.engine.indices(), [name], "no index is made by it");
    running.end();
}
