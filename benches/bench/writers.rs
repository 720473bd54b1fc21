//! What our triggers cost the catalogue's writers. The program does not run meanwhile.

use std::path::Path;
use std::process::Command;
use std::time::Instant;
use std::{env, fs};

use postgres::Client;

use crate::report::Aim::{AtMost, None as NoAim};
use crate::report::{Report, median};
use crate::settings::Settings;
use crate::support::world::World;

/// Measures many rows at once, and then single rows.
pub fn measure(settings: &Settings, world: &World, report: &mut Report) {
    let (rows, rounds) = (settings.bulk_rows(), settings.writer_rounds());
    let update = format!(
        "UPDATE content.film_work SET rating = rating + 1
        WHERE id IN (SELECT id FROM content.film_work ORDER BY id LIMIT {rows})"
    );
    let insert = format!(
        "INSERT INTO content.person_film_work (id, person_id, film_work_id, role)
        SELECT gen_random_uuid(), person_id, film_work_id, 'editor'
        FROM content.person_film_work WHERE role = 'director' LIMIT {rows}"
    );
    let mut client = world.database.client();
    for (what, sql, most) in
        [("rows updated at once", update, 1.5), ("links inserted at once", insert, 1.3)]
    {
        let [with, without] = in_turn(rounds, &mut client, |client, enabled| {
            // Each begins with the same free space, and none with another's checkpoint.
            for sql in ["VACUUM content.film_work, content.person_film_work", "CHECKPOINT"] {
                client.batch_execute(sql).unwrap_or_else(|err| panic!("{sql}: {err:?}"));
            }
            time_undone(client, &sql, enabled)
        });
        report.add(format!("{rows} {what}, without triggers"), without, "s", NoAim);
        let ratio = with / without;
        report.add(format!("{rows} {what}, with ÷ without triggers"), ratio, "", AtMost(most));
    }
    measure_single_rows(settings, world, &mut client, report);
}

/// Medians of what is measured with triggers and without, in an order that cancels drift.
fn in_turn(
    rounds: usize,
    client: &mut Client,
    mut measure: impl FnMut(&mut Client, bool) -> f64,
) -> [f64; 2] {
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        let order = if round % 2 == 0 { [true, false] } else { [false, true] };
        for enabled in order {
            times[usize::from(!enabled)].push(measure(client, enabled));
        }
    }
    times.map(|times| median(&times))
}

/// Seconds of a statement whose transaction is then rolled back.
fn time_undone(client: &mut Client, sql: &str, enabled: bool) -> f64 {
    let mut transaction = client.transaction().expect("begin");
    if !enabled {
        transaction.batch_execute(&switch_triggers("DISABLE")).expect("disable the triggers");
    }
    let started = Instant::now();
    transaction.batch_execute(sql).unwrap_or_else(|err| panic!("{sql}: {err:?}"));
    started.elapsed().as_secs_f64()
}

/// Makes the triggers fire as our migration has them, or not at all.
fn switch_triggers(action: &str) -> String {
    format!(
        "DO $$
        DECLARE
            t record;
        BEGIN
            FOR t IN
                SELECT tgrelid::regclass AS name, tgname FROM pg_trigger WHERE tgname LIKE 'zzz\\_etl\\_%'
            LOOP
                EXECUTE format('ALTER TABLE %s {action} TRIGGER %I', t.name, t.tgname);
            END LOOP;
        END
        $$"
    )
}

/// Updates of one row, each in its own transaction, by two clients.
fn measure_single_rows(
    settings: &Settings,
    world: &World,
    client: &mut Client,
    report: &mut Report,
) {
    let pgbench = Path::new(&env::var("ETL_DEV_PG_BIN").unwrap_or_default()).join("pgbench");
    let script = format!("{}/one_row.sql", env!("CARGO_TARGET_TMPDIR"));
    let lines = format!(
        "\\set n random(1, {})\nUPDATE content.film_work SET rating = random() * 10 WHERE id = md5('film' || :n)::uuid;\n",
        settings.films
    );
    fs::write(&script, lines).expect("write a script");
    let seconds = settings.pgbench_seconds().to_string();
    let run = || -> Option<f64> {
        let output = Command::new(&pgbench)
            .args(["-n", "-M", "prepared", "-c", "2", "-T", &seconds, "-f", &script])
            .arg(world.database.url())
            .output()
            .ok()?;
        let output = String::from_utf8_lossy(&output.stdout).into_owned();
        output.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok())
    };
    if run().is_none() {
        return report.note("One-row updates were not measured: there is no pgbench.");
    }
    let [with, without] = in_turn(settings.writer_rounds(), client, |client, enabled| {
        let action = if enabled { "ENABLE ALWAYS" } else { "DISABLE" };
        client.batch_execute(&switch_triggers(action)).expect("switch the triggers");
        1.0 / run().expect("pgbench ran before")
    });
    client.batch_execute(&switch_triggers("ENABLE ALWAYS")).expect("enable the triggers");
    report.add("one-row update by two clients, without triggers", without * 1000.0, "ms", NoAim);
    let ratio = with / without;
    report.add("one-row update, with ÷ without triggers", ratio, "", AtMost(1.25));
}
