//! A slow line between the program and the engine, where it pays to pack requests.

use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use crate::forwarder::forward;
use crate::program::{self, Cost};
use crate::report::Aim::{AtMost, None as NoAim};
use crate::report::Report;
use crate::settings::Settings;
use crate::support::world::World;

/// Of the line, in one direction, for all connections together.
const BYTES_A_SECOND: f64 = 5e6 / 8.0;

/// Sends the same documents plain and packed.
pub fn measure(settings: &Settings, world: &World, report: &mut Report) {
    let documents = settings.slow_documents();
    let line = Mutex::new(());
    let url = forward(&world.engine.url, move |bytes| {
        let _taken = line.lock().expect("nobody panics with it");
        thread::sleep(Duration::from_secs_f64(bytes.len() as f64 / BYTES_A_SECOND));
    });
    let mut client = world.database.client();
    let pending = format!(
        "UPDATE content.film_work SET indexed_at = NULL
        WHERE id IN (SELECT id FROM content.film_work ORDER BY id LIMIT {documents})"
    );
    let [plain, packed] = [&[][..], &["--gzip"]].map(|more| {
        client.batch_execute(&pending).expect("make films pending");
        let args = [&["start", "--until-idle", "--elasticsearch-url", &url], more].concat();
        program::run(world, &args, program::limit(documents))
    });
    let what = format!("{documents} documents over 5 Mbit/s");
    report.add(&what, plain.seconds, "s", NoAim);
    let ratio = packed.seconds / plain.seconds;
    report.add(format!("{what}, packed ÷ plain"), ratio, "", AtMost(0.5));
    let cpu = |cost: Cost| cost.cpu_seconds * 1e6 / documents as f64;
    report.add("CPU of a document, packing alone", cpu(packed) - cpu(plain), "µs", NoAim);
}
