//! The benchmark: the program as a process, on real servers, with the figures as ratios within one run.
//!
//! `make bench` runs it. `BENCH_FILMS` is the size of the catalogue, `BENCH_LARGE` that of a second
//! one. It prints a table and writes the same to `target/bench.json`. A figure that misses its aim is
//! marked, and fails nothing.

#![expect(clippy::cast_precision_loss, reason = "figures for people")]

mod catalogue; // films to measure with
mod ceiling; // what the engine takes at best
mod edits; // how soon an edit is in the index
mod engine; // connections to the engine
mod fan_out; // a renamed genre
mod forwarder; // what stands between the program and the engine
mod idle; // nothing to do
mod loads; // full loads
mod machine; // processor time, memory, cores
mod program; // the program as a process
mod report; // the table
mod settings; // how much is measured
mod slow_network; // where it pays to pack requests
mod startup; // how soon it is at work
#[expect(dead_code, clippy::unwrap_used, reason = "the tests need more of it, and may panic")]
mod support;
mod writers; // what triggers cost

use std::io::{self, Write};
use std::time::Instant;
use std::{env, fs};

use fan_out::Genre;
use loads::Yardstick;
use machine::Machine;
use program::Program;
use report::{Aim, Report};
use settings::Settings;

fn main() -> io::Result<()> {
    // `cargo bench` says so; `cargo test --all-targets` does not.
    if !env::args().any(|arg| arg == "--bench") {
        return Ok(());
    }
    let settings = Settings::from_env();
    let report = measure(&settings);
    let mut json = report.json();
    json["films"] = settings.films.into();
    fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench.json"), format!("{json:#}\n"))?;
    write!(io::stdout(), "{} films\n\n{}", settings.films, report.table())
}

fn measure(settings: &Settings) -> Report {
    let started = Instant::now();
    let tell = |what: &str| eprintln!("[{:.0} s] {what}", started.elapsed().as_secs_f64());
    let mut report = Report::default();
    let machine = Machine::from_env();
    if let Some(load) = machine::load_average() {
        report.add("load average at the start", load, "", Aim::None);
    }
    if let Some(cores) = machine::two_cores().map(|cores| cores.join(",")) {
        machine.pin_all(&cores, &cores);
    }
    tell("the catalogue");
    let world = catalogue::make("bench", settings.films);

    tell("full loads");
    let yardstick = loads::measure(settings, &world, &machine, &mut report);
    tell("full loads, the engine on one core");
    loads::measure_pinned(settings, &world, &machine, &yardstick, &mut report);
    tell("edits during a full load");
    edits::measure_during_load(settings, &world, &mut report);

    tell("a renamed genre");
    let genre = Genre::find(&mut world.database.client());
    fan_out::measure_writer(&world, &genre, &mut report);
    fan_out::settle(settings, &world);
    let program = Program::spawn(&world, &["start"]);
    fan_out::measure_documents(&world, &genre, &yardstick, &mut report);
    fan_out::measure_edits(&world, &genre, &mut report);

    tell("edits");
    edits::measure_single(settings, &world, &mut report);
    edits::measure_steady(settings, &world, &mut report);
    edits::measure_titles(settings, &world, &mut report);
    tell("nothing to do");
    idle::measure(settings, &world, &machine, &program, settings.films, &mut report);
    drop(program);

    tell("the start");
    startup::measure(&world, &mut report);
    startup::measure_binary(&mut report);
    tell("a slow network");
    slow_network::measure(settings, &world, &mut report);
    tell("writers");
    writers::measure(settings, &world, &mut report);
    if let Some(films) = settings.large {
        tell("a larger catalogue");
        measure_large(settings, films, &machine, &yardstick, &mut report);
    }
    tell("done");
    report
}

/// A larger catalogue, as a part of the first one.
fn measure_large(
    settings: &Settings,
    films: usize,
    machine: &Machine,
    yardstick: &Yardstick,
    report: &mut Report,
) {
    let world = catalogue::make("bench_large", films);
    loads::measure_large(films, &world, machine, yardstick, report);
    let program = Program::spawn(&world, &["start"]);
    idle::measure(settings, &world, machine, &program, films, report);
}
