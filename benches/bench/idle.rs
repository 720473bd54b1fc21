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

/// Looks at a program that has nothing to do, after many stamps and no vacuum by hand.
pub fn measure(
    settings: &Settings,
    world: &World,
    machine: &Machine,
    program: &Program,
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
        let postgres = (machine.postgres_seconds_but_autovacuum(), machine.postgres_seconds());
        (machine::seconds(program.id()), postgres, statements)
    };
    let before = look();
    thread::sleep(settings.idle());
    let after = look();
    let a_minute = 60.0 / settings.idle().as_secs_f64();
    if let Some((before, after)) = before.0.zip(after.0) {
        let cpu = (after - before) * a_minute;
        report.add("idle for a minute, CPU of the program", cpu, "s", AtMost(0.2));
    }
    if let Some((before, after)) = before.1.0.zip(after.1.0) {
        let cpu = (after - before) * a_minute;
        report.add("idle for a minute, CPU of PostgreSQL", cpu, "s", AtMost(0.5));
    }
    // Autovacuum clears up after what was measured before, whoever looks.
    if let Some((before, after)) = before.1.1.zip(after.1.1) {
        let cpu = (after - before) * a_minute;
        report.add("idle for a minute, the same with autovacuum", cpu, "s", NoAim);
    }
    // The first look is among them.
    let statements = (after.2 - before.2 - 1.0) * a_minute;
    report.add("idle for a minute, statements", statements, "", AtMost(700.0));
}
