//! How soon the program is at work, and what it needs to be there.

use std::fs;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::catalogue::{film_id, wait_until_settled};
use crate::edits::LIMIT;
use crate::forwarder::forward;
use crate::program::Program;
use crate::report::Aim::AtMost;
use crate::report::{Report, median};
use crate::support::world::World;

/// From the start of the process until the head of its first bulk request comes to a forwarder in front of the
/// engine.
pub fn measure(world: &World, report: &mut Report) {
    const TIMES: usize = 5;
    let (sender, bulk_requests) = mpsc::channel();
    let url = forward(&world.engine.url, move |bytes| {
        if bytes.windows(6).any(|part| part == b"/_bulk") {
            let _ = sender.send(Instant::now());
        }
    });
    let mut client = world.database.client();
    let mut times = Vec::new();
    for n in 1..=TIMES {
        let edit = format!("UPDATE content.film_work SET title = '' WHERE id = {}", film_id(n));
        client.batch_execute(&edit).expect("edit a film");
        while bulk_requests.try_recv().is_ok() {}
        let started = Instant::now();
        let program = Program::start_by_way_of(world, &url);
        let at = bulk_requests.recv_timeout(LIMIT).expect("a bulk request");
        times.push(at.duration_since(started).as_secs_f64() * 1000.0);
        wait_until_settled(&mut client, LIMIT);
        drop(program);
        // Until PostgreSQL has noticed, and the lead is free.
        thread::sleep(Duration::from_millis(300));
    }
    report.add("start until the first bulk request", median(&times), "ms", AtMost(100.0));
}

/// Size and needs of the binary.
pub fn measure_binary(report: &mut Report) {
    let binary = env!("CARGO_BIN_EXE_etl");
    let size = fs::metadata(binary).expect("the binary is there").len() as f64 / 1e6;
    report.add("size of the binary", size, "MB", AtMost(12.0));
    let Ok(output) = Command::new("ldd").arg(binary).output() else {
        return report.note("There is no ldd to ask what the binary needs.");
    };
    let output = String::from_utf8_lossy(&output.stdout);
    let names = output.lines().filter_map(|line| line.split_whitespace().next());
    // The kernel's own, and the parts of glibc: what loads the others, and the mathematics.
    let is_expected = |name: &&str| {
        ["linux-vdso.so.1", "libc.so.6", "libm.so.6"].contains(name) || name.contains("/ld-linux")
    };
    let others = names.filter(|name| !is_expected(name)).count();
    report.add("shared libraries of the binary, besides glibc's", others as f64, "", AtMost(0.0));
}
