//! What a renamed genre costs its writer, and when its films are right.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use postgres::Client;

use crate::catalogue::{number, text, wait_until_settled};
use crate::edits::{Editor, LIMIT, report_p99};
use crate::engine::Connection;
use crate::loads::Yardstick;
use crate::program;
use crate::report::Aim::{AtMost, None as NoAim};
use crate::report::{Report, median};
use crate::settings::Settings;
use crate::support::world::World;

/// A genre of about a tenth of all films.
pub struct Genre {
    id: String,
    films: f64,
}

impl Genre {
    /// Looks for it.
    pub fn find(client: &mut Client) -> Self {
        let id = text(
            client,
            "SELECT genre_id::text FROM content.genre_film_work GROUP BY genre_id
            ORDER BY abs(count(*) - (SELECT count(*) FROM content.film_work) / 10), genre_id LIMIT 1",
        );
        let links = format!("FROM content.genre_film_work WHERE genre_id = '{id}'");
        let films = number(client, &format!("SELECT count(*)::float8 {links}"));
        Self { id, films }
    }

    fn rename(&self, client: &mut Client, name: &str) {
        let sql = format!("UPDATE content.genre SET name = '{name}' WHERE id = '{}'", self.id);
        assert_eq!(client.execute(&sql, &[]).expect("rename a genre"), 1);
    }
}

/// The writer's transaction, while the program does not run, as many times that of a film's edit.
pub fn measure_writer(world: &World, genre: &Genre, report: &mut Report) {
    const TIMES: usize = 20;
    let mut client = world.database.client();
    let film = text(&mut client, "SELECT min(id::text) FROM content.film_work");
    let edit = format!("UPDATE content.film_work SET title = 'One row' WHERE id = '{film}'");
    let (mut renames, mut edits) = (Vec::new(), Vec::new());
    for n in 0..TIMES {
        let started = Instant::now();
        genre.rename(&mut client, &format!("Genre, renamed {n} times"));
        renames.push(started.elapsed().as_secs_f64());
        let started = Instant::now();
        client.execute(&edit, &[]).expect("edit a film");
        edits.push(started.elapsed().as_secs_f64());
    }
    report.add("films of the genre that is renamed", genre.films, "", NoAim);
    let ratio = median(&renames) / median(&edits);
    report.add("genre rename ÷ one-row update, for the writer", ratio, "", AtMost(1.2));
}

/// From the commit until every document has the new name, as many times what the raw ceiling takes for
/// as many documents.
pub fn measure_documents(world: &World, genre: &Genre, yardstick: &Yardstick, report: &mut Report) {
    let mut client = world.database.client();
    let name = "Genre, renamed for good";
    genre.rename(&mut client, name);
    let committed = text(&mut client, "SELECT clock_timestamp()::text");
    wait_until_settled(&mut client, LIMIT);
    let seconds = number(
        &mut client,
        &format!(
            "SELECT extract(epoch FROM max(f.indexed_at) - '{committed}'::timestamptz)::float8
            FROM content.film_work f JOIN content.genre_film_work l ON l.film_work_id = f.id
            WHERE l.genre_id = '{}'",
            genre.id
        ),
    );
    let right = Connection::new(&world.engine).count_genre(&world.engine.alias(), name);
    assert!((right as f64 - genre.films).abs() < 0.5, "only {right} documents have the new name");
    report.add("genre rename until all documents are right", seconds, "s", NoAim);
    let ratio = seconds / (genre.films / yardstick.best);
    report.add("genre rename ÷ as many documents at the raw ceiling", ratio, "", AtMost(2.0));
}

/// Single edits of other films meanwhile.
pub fn measure_edits(world: &World, genre: &Genre, report: &mut Report) {
    let mut client = world.database.client();
    let mut editor = Editor::new(
        world,
        &format!(
            "NOT EXISTS (
                SELECT FROM content.genre_film_work l
                WHERE l.film_work_id = f.id AND l.genre_id = '{}')",
            genre.id
        ),
    );
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        genre.rename(&mut client, "Genre, renamed once more");
        scope.spawn(|| editor.edit_until(Duration::from_millis(20), &stop));
        // Fanned out and sent, but for the edits themselves.
        let pending = format!(
            "SELECT count(*)::float8 FROM content.genre g WHERE g.id = '{0}' AND (
                g.fanned_out_at IS NULL OR EXISTS (SELECT FROM etl.outbox) OR EXISTS (
                    SELECT FROM content.genre_film_work l
                    JOIN content.film_work f ON f.id = l.film_work_id
                    WHERE l.genre_id = g.id AND f.indexed_at IS NULL))",
            genre.id
        );
        let deadline = Instant::now() + LIMIT;
        while number(&mut client, &pending) > 0.0 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(100));
        }
        stop.store(true, Ordering::Relaxed);
    });
    wait_until_settled(&mut client, LIMIT);
    report_p99("during the fan-out", &editor.latencies(), report);
}

/// Lets the program do what the renames have left.
pub fn settle(settings: &Settings, world: &World) {
    program::load(world, settings.films);
}
