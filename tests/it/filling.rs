//! A new index whose documents are on their way: what waits for them, and what does not.

use std::iter::repeat_n;
use std::thread;
use std::time::Duration;

use crate::support::one_by_one::{deletes, first_id, start_warm, wait_until_stamped, world_of};
use crate::support::proxy::{Fault, Proxy};
use crate::support::wait::wait_until;
use crate::support::world::{Running, World};

/// Begins a rebuild of which so many requests do not come to the engine.
fn rebuild_held(world: &World, proxy: &Proxy, held: usize) -> Running {
    let before = proxy.bulk_requests();
    proxy.forget_recorded();
    proxy.plan(repeat_n(Fault::HoldRequest, held));
    let command = world.spawn(&["rebuild", "--kind", "movies"]);
    wait_until("the first page is on its way", || proxy.bulk_requests() >= before + held);
    command
}

/// Lets the rebuild come to its end.
#[track_caller]
fn end_well(mut world: World, proxy: &Proxy, command: Running, leader: Running) {
    proxy.release();
    let outcome = command.wait();
    assert_eq!(outcome.code, Some(0), "{outcome}");
    world.wait_in_step();
    leader.end();
    assert_eq!(world.sync(), 0);
}

const UNFILLED: &str = "SELECT FROM etl.rebuild WHERE phase = 'filling' AND filled_to IS NULL";

#[test]
fn an_edit_does_not_wait_for_it() {
    let mut world = world_of("filling_edit", 12);
    let proxy = Proxy::new(&world.engine.url);
    let leader = start_warm(&mut world, &proxy, "4");
    let command = rebuild_held(&world, &proxy, 4);
    // Also of the rows of the first page: their documents are newer.
    world.sql("UPDATE content.film_work SET title = title || '!'");
    wait_until_stamped(&mut world);
    assert_eq!(world.client.query(UNFILLED, &[]).unwrap().len(), 1, "nothing was held");
    end_well(world, &proxy, command, leader);
}

/// If the engine were restarted between the two it would take the document, and nobody would delete it again.
#[test]
fn the_deletion_of_its_row_waits_for_it_and_no_other() {
    let mut world = world_of("filling_delete", 12);
    let proxy = Proxy::new(&world.engine.url);
    let leader = start_warm(&mut world, &proxy, "4");
    let command = rebuild_held(&world, &proxy, 1);
    // One of the two of the first page, whose requests may overtake each other.
    world.sql(&format!(
        "DELETE FROM content.film_work WHERE id = '{}' OR title = 'Film 12'",
        first_id(&proxy)
    ));
    world.wait_for_row(
        "SELECT FROM (SELECT count(*) AS left FROM etl.outbox WHERE op = 'tombstone') AS outbox
         WHERE outbox.left = 1",
    );
    thread::sleep(Duration::from_millis(700));
    // To both indices.
    assert_eq!(deletes(&proxy), 2);
    end_well(world, &proxy, command, leader);
}

#[test]
fn what_is_answered_behind_it_is_not_noted_before_it() {
    let mut world = world_of("filling_order", 40);
    let proxy = Proxy::new(&world.engine.url);
    let leader = start_warm(&mut world, &proxy, "4");
    let before = proxy.bulk_requests();
    let command = rebuild_held(&world, &proxy, 1);
    // Two films a page, and so many pages and no more.
    wait_until("pages behind it are sent", || proxy.bulk_requests() == before + 16);
    thread::sleep(Duration::from_millis(700));
    assert_eq!(proxy.bulk_requests(), before + 16);
    assert_eq!(world.client.query(UNFILLED, &[]).unwrap().len(), 1);
    leader.signal("-KILL");
    drop((leader, proxy));
    assert_eq!(command.wait().code, Some(0));
    world.sync();
    world.check_in_step();
}

#[test]
fn it_gets_on_beside_a_backlog() {
    let mut world = world_of("filling_backlog", 12);
    let proxy = Proxy::new(&world.engine.url);
    let leader = start_warm(&mut world, &proxy, "2");
    let before = proxy.bulk_requests();
    proxy.plan_at(&world.engine.indices(), repeat_n(Fault::HoldRequest, 99));
    world.sql("UPDATE content.film_work SET title = title || '!'");
    wait_until("documents are on their way", || proxy.bulk_requests() > before);
    let command = world.spawn(&["rebuild", "--kind", "movies"]);
    world.wait_for_row("SELECT FROM etl.rebuild WHERE filled_to IS NOT NULL");
    end_well(world, &proxy, command, leader);
}
