//! What it costs to have nothing to do.

use std::thread;
use std::time::Duration;

use crate::catalogue::number;
use crate::machine::{self, Machine};
use crate::program::Program;
use crate::report::Aim::{AtMost, None as NoAim};
use crate::report::Report;
use crate::settings::Settings;
use crate::support::world::World;

/// Looks at a program that has nothing to do, after so many stamps and no vacuum by hand.
pub fn measure(
    settings: &Settings,
    world: &World,
    machine: &Machine,
    program: &Program,
    stamps: usize,
    report: &mut Report,
) {
    let mut client = world.database.client();
    // Sessions tell their statistics once a second.
    thread::sleep(Duration::from_secs(2));
    let mut look = || {
        let statements = number(
            &mut client,
            "SELECT xact_commit::float8 FROM pg_stat_database WHERE datname = current_database()",
        );
        let seconds = [
            machine::seconds(program.id()),
            machine.postgres_seconds_but_autovacuum(),
            machine.postgres_seconds(),
        ];
        (seconds, statements)
    };
    let before = look();
    thread::sleep(settings.idle());
    let after = look();
    let a_minute = 60.0 / settings.idle().as_secs_f64();
    let figures = [
        ("CPU of the program", AtMost(0.2)),
        ("CPU of PostgreSQL", AtMost(0.5)),
        // It clears up after what was measured before, whoever looks.
        ("the same with autovacuum", NoAim),
    ];
    for (place, (what, aim)) in figures.into_iter().enumerate() {
        if let Some((before, after)) = before.0[place].zip(after.0[place]) {
            let cpu = (after - before) * a_minute;
            report.add(format!("idle for a minute after {stamps} stamps, {what}"), cpu, "s", aim);
        }
    }
    // The first look is among them.
    let statements = (after.1 - before.1 - 1.0) * a_minute;
    let what = format!("idle for a minute after {stamps} stamps, statements");
    report.add(what, statements, "", AtMost(700.0));
}
