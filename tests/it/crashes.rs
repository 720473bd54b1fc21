//! Killed again and again, and left alone by the engine: work goes on where it was, and at once.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::proxy::{Proxy, split_operations};
use crate::support::world::World;

#[test]
fn a_load_that_is_killed_every_half_second_still_ends() {
    let mut world = World::new("crashes_loop");
    world.sql(
        "INSERT INTO content.film_work (id, title)
         SELECT gen_random_uuid(), 'Film ' || n FROM generate_series(1, 9000) AS n",
    );
    let pending = "SELECT FROM content.film_work WHERE indexed_at IS NULL LIMIT 1";
    let mut lives = 0;
    while !world.client.query(pending, &[]).unwrap().is_empty() {
        lives += 1;
        assert!(lives < 120, "it has not ended after {lives} lives of half a second");
        let running = world.spawn(&["start"]);
        thread::sleep(Duration::from_millis(500));
        running.signal("-KILL");
        let _ = running.wait();
    }
    assert!(lives > 1, "it was killed in the middle");
    assert_eq!(world.sync(), 0);
    world.check_in_step();
}

#[test]
fn an_engine_that_is_back_has_what_is_pending_within_two_seconds_and_only_that() {
    let mut world = World::new("crashes_away");
    world.sql(
        "INSERT INTO content.film_work (id, title)
         SELECT gen_random_uuid(), 'Film ' || n FROM generate_series(1, 500) AS n",
    );
    let proxy = Proxy::new(&world.engine.url);
    let running = world.spawn(&["start", "--elasticsearch-url", &proxy.url]);
    world.wait_in_step();
    proxy.set_up(false);
    world.sql("UPDATE content.film_work SET title = title || '!' WHERE title LIKE 'Film 1%'");
    // By then the pauses are as long as they get.
    thread::sleep(Duration::from_secs(8));
    let before = proxy.recorded().len();
    proxy.set_up(true);
    let returned = Instant::now();
    while proxy.recorded().len() == before {
        assert!(returned.elapsed() < Duration::from_secs(2), "nothing was sent within 2 s");
        thread::sleep(Duration::from_millis(10));
    }
    world.wait_in_step();
    let sent: Vec<Vec<u8>> = proxy.recorded().split_off(before);
    let operations: usize = sent.iter().map(|request| split_operations(request).1.len()).sum();
    assert_eq!(operations, 111, "each film that was pending, once");
    running.end();
}
