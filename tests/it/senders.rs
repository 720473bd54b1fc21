//! Several bulk requests at a time: how many, at what rate, packed how, and what waits for which.

use std::iter::repeat_n;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::one_by_one::{deletes, first_id, start_warm, wait_until_stamped, world_of};
use crate::support::proxy::{Fault, Proxy};
use crate::support::wait::wait_until;
use crate::support::world::{Running, World};

/// Looks for a while whether any more bulk requests come.
#[track_caller]
fn check_no_more_requests(proxy: &Proxy, count: usize) {
    thread::sleep(Duration::from_millis(700));
    assert_eq!(proxy.bulk_requests(), count);
}

#[test]
fn as_many_requests_are_open_as_the_settings_say_and_one_for_edits_that_waits_for_none_of_them() {
    let mut world = world_of("senders_open", 12);
    let proxy = Proxy::new(&world.engine.url);
    let running = start_warm(&mut world, &proxy, "4");
    let before = proxy.bulk_requests();
    proxy.plan(repeat_n(Fault::HoldRequest, 99));
    world.sql("UPDATE content.film_work SET title = title || '!'");
    wait_until("four requests are open", || proxy.bulk_requests() == before + 4);
    check_no_more_requests(&proxy, before + 4);
    let edit = "INSERT INTO content.film_work (id, title) VALUES (gen_random_uuid(), 'Edit')";
    world.sql(edit);
    wait_until("the edit is sent", || proxy.bulk_requests() == before + 5);
    world.sql(edit);
    check_no_more_requests(&proxy, before + 5);
    proxy.plan([]);
    proxy.release();
    end_when_stamped(&mut world, running);
}

/// Ends a process that has done everything.
#[track_caller]
fn end_when_stamped(world: &mut World, running: Running) {
    wait_until_stamped(world);
    world.wait_in_step();
    running.end();
    assert_eq!(world.sync(), 0);
}

/// If the engine were restarted between the two it would take the document, and nobody would delete it again.
#[test]
fn a_delete_waits_for_a_document_that_is_on_its_way() {
    let mut world = world_of("senders_delete", 12);
    let proxy = Proxy::new(&world.engine.url);
    let running = start_warm(&mut world, &proxy, "4");
    let before = proxy.bulk_requests();
    proxy.forget_recorded();
    // One document is on its way, and those of the others come one after the other.
    let slow = repeat_n(Fault::SlowAnswer(Duration::from_millis(500)), 11);
    proxy.plan([Fault::HoldRequest].into_iter().chain(slow));
    world.sql("UPDATE content.film_work SET title = title || '!'");
    wait_until("four requests are open", || proxy.bulk_requests() >= before + 4);
    world.sql(&format!("DELETE FROM content.film_work WHERE id = '{}'", first_id(&proxy)));
    wait_until("the others are sent", || proxy.bulk_requests() > before + 5);
    thread::sleep(Duration::from_millis(1_500));
    assert_eq!(deletes(&proxy), 0, "the delete did not wait");
    proxy.release();
    end_when_stamped(&mut world, running);
}

#[test]
fn a_rate_is_kept() {
    let world = world_of("senders_rate", 200);
    let started = Instant::now();
    world.succeed(&["start", "--until-idle", "--rate", "100"]);
    // A quarter of a second's documents go out at once.
    assert!(started.elapsed() >= Duration::from_millis(1_700), "{:?}", started.elapsed());
    let mut world = world;
    world.check_in_step();
}

#[test]
fn requests_are_compressed_if_told_so() {
    let mut world = world_of("senders_gzip", 300);
    let proxy = Proxy::new(&world.engine.url);
    let bytes_of = |proxy: &Proxy| proxy.recorded().iter().map(Vec::len).sum::<usize>();
    world.succeed(&["start", "--until-idle", "--elasticsearch-url", &proxy.url]);
    let plain = bytes_of(&proxy);
    proxy.forget_recorded();
    world.sql("UPDATE content.film_work SET title = title || '!'");
    world.succeed(&["start", "--until-idle", "--gzip", "--elasticsearch-url", &proxy.url]);
    let packed = bytes_of(&proxy);
    assert!(packed * 4 < plain, "{plain} bytes plain, {packed} packed");
    let requests = proxy.recorded();
    let is_packed = |request: &Vec<u8>| {
        String::from_utf8_lossy(request).to_lowercase().contains("content-encoding: gzip")
    };
    assert!(!requests.is_empty() && requests.iter().all(is_packed));
    world.check_in_step();
}

#[test]
fn an_engine_that_is_busy_gets_fewer_requests_at_a_time() {
    let mut world = world_of("senders_busy", 12);
    let proxy = Proxy::new(&world.engine.url);
    let running = start_warm(&mut world, &proxy, "4");
    let before = proxy.bulk_requests();
    // Four are refused, and of the rest one at a time is held.
    proxy.plan(repeat_n(Fault::Status(429), 4).chain(repeat_n(Fault::HoldRequest, 100)));
    world.sql("UPDATE content.film_work SET title = title || '!'");
    wait_until("they are tried again", || proxy.bulk_requests() > before + 4);
    thread::sleep(Duration::from_millis(700));
    let open = proxy.bulk_requests() - before - 4;
    assert!((1..=2).contains(&open), "{open} requests are open");
    proxy.plan([]);
    proxy.release();
    end_when_stamped(&mut world, running);
}
