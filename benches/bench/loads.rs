//! Full loads, as parts of the raw ceiling.

use crate::ceiling::Ceiling;
use crate::machine::{self, Machine};
use crate::program::{self, Cost};
use crate::report::Aim::{AtLeast, AtMost, None as NoAim};
use crate::report::{Report, median};
use crate::settings::Settings;
use crate::support::world::World;

/// A full load.
struct Load {
    /// `etl init-es`.
    init: Cost,
    /// `etl start --until-idle`.
    start: Cost,
    /// Of PostgreSQL, during the second.
    postgres_cpu_seconds: Option<f64>,
}

impl Load {
    fn measure(world: &World, machine: &Machine, films: usize) -> Self {
        let init = program::init(world, films);
        let before = machine.postgres_seconds();
        let start = program::load(world, films);
        let after = machine.postgres_seconds();
        let postgres_cpu_seconds = before.zip(after).map(|(before, after)| after - before);
        Self { init, start, postgres_cpu_seconds }
    }

    /// Documents a second, from the start of `etl start` to its end.
    fn rate(&self, films: usize) -> f64 {
        films as f64 / self.start.seconds
    }
}

/// What the other figures are compared with.
pub struct Yardstick {
    pub ceiling: Ceiling,
    /// How many connections take the engine to its limit.
    pub connections: usize,
    /// Documents a second by so many.
    pub best: f64,
    /// Documents a second of a full load.
    pub load: f64,
    /// The largest resident memory of a full load, in MB.
    pub peak_memory: f64,
}

/// Measures the raw ceiling and full loads in turn.
pub fn measure(
    settings: &Settings,
    world: &World,
    machine: &Machine,
    report: &mut Report,
) -> Yardstick {
    let films = settings.films;
    // The first one is not counted: the engine's code is compiled as it runs.
    Load::measure(world, machine, films);
    let ceiling = Ceiling::new(&world.engine);
    assert_eq!(ceiling.documents(), films, "the index does not have all films");
    report.add("bytes of a document", ceiling.document_bytes(), "B", NoAim);
    let (connections, _) = [1, 2, 4, 8]
        .map(|connections| {
            let rate = ceiling.measure(&world.engine, connections, settings.sweep_documents());
            let what = format!("raw ceiling, connections: {connections}");
            report.add(what, rate, "documents/s", NoAim);
            (connections, rate)
        })
        .into_iter()
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .expect("four were measured");
    let (mut loads, mut ceilings) = (Vec::new(), Vec::new());
    settings.repeat(|| {
        loads.push(Load::measure(world, machine, films));
        ceilings.push(ceiling.measure(&world.engine, connections, films));
    });
    let rates: Vec<f64> = loads.iter().map(|load| load.rate(films)).collect();
    let (load, best) = (median(&rates), median(&ceilings));
    report.add(format!("best raw ceiling, {connections} connections"), best, "documents/s", NoAim);
    report.add("full load by start", load, "documents/s", NoAim);
    report.add("full load ÷ raw ceiling", load / best, "", AtLeast(0.8));
    let of = |part: fn(&Load) -> f64| median(&loads.iter().map(part).collect::<Vec<_>>());
    report.add("before it, init-es", of(|load| load.init.seconds), "s", NoAim);
    let each = 1e6 / films as f64;
    let own = of(|load| load.start.cpu_seconds) * each;
    report.add("CPU of a document, the program", own, "µs", AtMost(8.0));
    if loads[0].postgres_cpu_seconds.is_some() {
        let postgres = of(|load| load.postgres_cpu_seconds.unwrap_or_default()) * each;
        report.add("CPU of a document, PostgreSQL", postgres, "µs", AtMost(40.0));
    }
    let peak_memory = of(|load| load.start.peak_memory);
    report.add("peak resident memory", peak_memory, "MB", AtMost(40.0));
    let again = ceiling.measure_again(&world.engine, connections, settings.titles());
    report.add("raw ceiling, documents that are there already", again, "documents/s", NoAim);
    Yardstick { ceiling, connections, best, load, peak_memory }
}

/// The same with the engine alone on one core, and all else on the other.
pub fn measure_pinned(
    settings: &Settings,
    world: &World,
    machine: &Machine,
    yardstick: &Yardstick,
    report: &mut Report,
) {
    let Some([one, other]) = machine::two_cores() else {
        return report.note("Not measured on one core each: there is one alone.");
    };
    let both = format!("{one},{other}");
    if machine.pin_all(&one, &other) {
        let (mut loads, mut ceilings) = (Vec::new(), Vec::new());
        let films = settings.films;
        settings.repeat(|| {
            ceilings.push(yardstick.ceiling.measure(&world.engine, yardstick.connections, films));
            loads.push(Load::measure(world, machine, films).rate(films));
        });
        let ratio = median(&loads) / median(&ceilings);
        report.add("raw ceiling, engine on one core", median(&ceilings), "documents/s", NoAim);
        report.add("full load ÷ raw ceiling, engine on one core", ratio, "", AtLeast(0.97));
    } else {
        report.note("Not measured on one core each: the servers are not ours, or no taskset.");
    }
    machine.pin_all(&both, &both);
}

/// A catalogue of another size, as a part of the first one.
pub fn measure_large(
    films: usize,
    world: &World,
    machine: &Machine,
    yardstick: &Yardstick,
    report: &mut Report,
) {
    let load = Load::measure(world, machine, films);
    let rate = load.rate(films);
    report.add(format!("full load of {films} films"), rate, "documents/s", NoAim);
    report.add(
        format!("rate at {films} films ÷ rate before"),
        rate / yardstick.load,
        "",
        AtLeast(0.9),
    );
    let peak = load.start.peak_memory;
    report.add(format!("peak resident memory at {films} films"), peak, "MB", AtMost(40.0));
    let growth = peak / yardstick.peak_memory;
    report.add(format!("peak resident memory at {films} films ÷ before"), growth, "", AtMost(1.1));
}
