//! How soon the program is at work, and what it needs to be there.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crate::catalogue::{film_id, wait_until_settled};
use crate::edits::LIMIT;
use crate::program::Program;
use crate::report::Aim::AtMost;
use crate::report::{Report, median};
use crate::support::world::World;

/// From the start of the process until the head of its first bulk request comes to a forwarder in front of the
/// engine.
pub fn measure(world: &World, report: &mut Report) {
    const TIMES: usize = 5;
    let (sender, bulk_requests) = mpsc::channel();
    let url = forward(&world.engine.url, sender);
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

/// Forwards to the engine, and tells when a bulk request comes. Returns the URL to use instead.
fn forward(engine_url: &str, sender: Sender<Instant>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind a port");
    let url = format!("http://{}", listener.local_addr().expect("a bound port"));
    let engine = engine_url.strip_prefix("http://").expect("an engine without TLS");
    let engine = engine.trim_end_matches('/').to_owned();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(&engine) else { continue };
            let ends = [&client, &server].map(|end| end.try_clone().expect("another handle"));
            let [to_client, from_server] = ends;
            let sender = sender.clone();
            thread::spawn(move || copy(client, server, Some(&sender)));
            thread::spawn(move || copy(from_server, to_client, None));
        }
    });
    url
}

fn copy(mut from: TcpStream, mut to: TcpStream, sender: Option<&Sender<Instant>>) {
    let mut buffer = [0; 16_384];
    loop {
        // An error is an end, too.
        let count = from.read(&mut buffer).unwrap_or(0);
        let is_bulk = buffer[..count].windows(6).any(|bytes| bytes == b"/_bulk");
        if let Some(sender) = sender.filter(|_| is_bulk) {
            let _ = sender.send(Instant::now());
        }
        if count == 0 || to.write_all(&buffer[..count]).is_err() {
            let _ = to.shutdown(Shutdown::Both);
            return;
        }
    }
}
