//! Films of which each is a request by itself, so that it can be told which of them are on their way.

use super::proxy::{Proxy, split_operations};
use super::world::{Running, World};

/// A world of so many films, all pending.
pub fn world_of(name: &str, films: usize) -> World {
    let mut world = World::new(name);
    world.sql(&format!(
        "INSERT INTO content.film_work (id, title)
         SELECT ('00000000-0000-4000-9000-' || lpad(n::text, 12, '0'))::uuid, 'Film ' || n
         FROM generate_series(1, {films}) AS n"
    ));
    world
}

/// A process that has sent all films, one a request: by then it has as many requests open as it may.
pub fn start_warm(world: &mut World, proxy: &Proxy, senders: &str) -> Running {
    let start = ["start", "--batch-size", "1", "--senders", senders];
    let running = world.spawn(&[&start[..], &["--elasticsearch-url", &proxy.url]].concat());
    world.wait_in_step();
    running
}

/// Waits until no film is pending.
#[track_caller]
pub fn wait_until_stamped(world: &mut World) {
    world.wait_for_row(
        "SELECT FROM (SELECT count(*) AS pending FROM content.film_work WHERE indexed_at IS NULL) AS films
         WHERE pending = 0",
    );
}

/// The id of the film of the first request that is kept.
pub fn first_id(proxy: &Proxy) -> String {
    let request = String::from_utf8(proxy.recorded().remove(0)).expect("a request of text");
    let (_, id) = request.split_once(r#""_id":""#).expect("a document has an id");
    id[..36].to_owned()
}

/// How many deletes there are in the requests that are kept.
pub fn deletes(proxy: &Proxy) -> usize {
    let deletes_of = |request: &Vec<u8>| {
        let operations = split_operations(request).1;
        operations.iter().filter(|operation| operation.starts_with(b"{\"delete\"")).count()
    };
    proxy.recorded().iter().map(deletes_of).sum()
}
