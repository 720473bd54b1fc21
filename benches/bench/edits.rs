//! How soon an edit is in the index.
//!
//! Where many are measured at once, the row says it: from its touch, in the writer's transaction, to
//! its stamp, which comes after the engine's answer. A document can be read at that time at the latest.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use postgres::Client;
use uuid::Uuid;

use crate::catalogue::{number, text, wait_until_settled};
use crate::engine::Connection;
use crate::program::{self, Program};
use crate::report::Aim::{AtMost, None as NoAim};
use crate::report::{Report, percentile};
use crate::settings::Settings;
use crate::support::world::World;

/// After this an edit is lost.
pub const LIMIT: Duration = Duration::from_secs(120);

/// An application that changes titles, of each film once.
pub struct Editor {
    client: Client,
    /// In random order.
    films: Vec<Uuid>,
    edited: Vec<Uuid>,
}

impl Editor {
    /// One that edits films for which the condition is true.
    pub fn new(world: &World, condition: &str) -> Self {
        let mut client = world.database.client();
        let sql = format!("SELECT id FROM content.film_work f WHERE {condition} ORDER BY id");
        let rows = client.query(&sql, &[]).expect("look for films");
        let mut films: Vec<Uuid> = rows.iter().map(|row| row.get(0)).collect();
        Rng::with_seed(1).shuffle(&mut films);
        Self { client, films, edited: Vec::new() }
    }

    /// Changes the title of a film, and returns its id.
    fn edit(&mut self, title: &str) -> Uuid {
        let id = self.films.pop().expect("enough films to edit");
        let sql = "UPDATE content.film_work SET title = $1 WHERE id = $2";
        self.client.execute(sql, &[&title, &id]).expect("edit a film");
        self.edited.push(id);
        id
    }

    /// Edits at a steady pace until told to stop.
    pub fn edit_until(&mut self, pause: Duration, stop: &AtomicBool) {
        let mut next = Instant::now();
        while !stop.load(Ordering::Relaxed) && !self.films.is_empty() {
            self.edit("Edited meanwhile");
            next += pause;
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }

    /// Milliseconds from the touch to the stamp of each edit.
    pub fn latencies(mut self) -> Vec<f64> {
        let sql = "SELECT extract(epoch FROM indexed_at - touched_at)::float8 * 1000
            FROM content.film_work WHERE id = ANY ($1)";
        let rows = self.client.query(sql, &[&self.edited]).expect("look at the stamps");
        rows.iter().map(|row| row.get::<_, Option<f64>>(0).expect("a stamp")).collect()
    }
}

/// Edits one at a time, each until it is read back.
pub fn measure_single(settings: &Settings, world: &World, report: &mut Report) {
    let (engine, alias) = (Connection::new(&world.engine), world.engine.alias());
    let mut editor = Editor::new(world, "true");
    let mut rng = Rng::with_seed(2);
    let mut latencies = Vec::new();
    for n in 0..settings.single_edits() {
        // At any time between two looks of the program.
        thread::sleep(Duration::from_millis(rng.u64(..100)));
        let title = format!("Edited for the {n}th time");
        let started = Instant::now();
        let id = editor.edit(&title).to_string();
        while engine.title(&alias, &id).as_ref() != Some(&title) {
            assert!(started.elapsed() < LIMIT, "an edit is not in the index");
            thread::sleep(Duration::from_millis(1));
        }
        latencies.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    let p50 = percentile(&latencies, 50);
    report.add("edit until read back, one at a time, p50", p50, "ms", AtMost(60.0));
    let p99 = percentile(&latencies, 99);
    report.add("edit until read back, one at a time, p99", p99, "ms", NoAim);
}

/// 100 edits a second.
pub fn measure_steady(settings: &Settings, world: &World, report: &mut Report) {
    let mut editor = Editor::new(world, "true");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| editor.edit_until(Duration::from_millis(10), &stop));
        thread::sleep(settings.steady_edits());
        stop.store(true, Ordering::Relaxed);
    });
    wait_until_settled(&mut world.database.client(), LIMIT);
    let per_second = editor.edited.len() as f64 / settings.steady_edits().as_secs_f64();
    let latencies = editor.latencies();
    report.add("steady edits", per_second, "a second", NoAim);
    let p50 = percentile(&latencies, 50);
    report.add("steady edit until acknowledged, p50", p50, "ms", AtMost(100.0));
    let p99 = percentile(&latencies, 99);
    report.add("steady edit until acknowledged, p99", p99, "ms", AtMost(300.0));
}

/// Many titles in one statement, from its commit to the last stamp.
pub fn measure_titles(settings: &Settings, world: &World, report: &mut Report) {
    let titles = settings.titles();
    let mut client = world.database.client();
    let chosen = format!("SELECT id FROM content.film_work ORDER BY id LIMIT {titles}");
    client
        .batch_execute(&format!(
            "CREATE TEMP TABLE chosen AS {chosen};
            UPDATE content.film_work SET title = 'One of many' WHERE id IN (SELECT id FROM chosen)"
        ))
        .expect("change titles");
    let committed = text(&mut client, "SELECT clock_timestamp()::text");
    wait_until_settled(&mut client, LIMIT);
    let seconds = number(
        &mut client,
        &format!(
            "SELECT extract(epoch FROM max(indexed_at) - '{committed}'::timestamptz)::float8
            FROM content.film_work JOIN chosen USING (id)"
        ),
    );
    let what = format!("{titles} titles in one statement until acknowledged");
    report.add(what, seconds, "s", AtMost(1.0));
}

/// Single edits while everything is loaded.
pub fn measure_during_load(settings: &Settings, world: &World, report: &mut Report) {
    program::init(world, settings.films);
    let mut editor = Editor::new(world, "true");
    let mut client = world.database.client();
    let limit = program::limit(settings.films);
    let started = text(&mut client, "SELECT clock_timestamp()::text");
    let stop = AtomicBool::new(false);
    let program = Program::spawn(world, &["start"]);
    // What is edited before the load begins is a part of it.
    let has_begun = "SELECT (EXISTS (SELECT FROM content.film_work WHERE indexed_at IS NOT NULL))::integer::float8";
    let deadline = Instant::now() + limit;
    while number(&mut client, has_begun) < 1.0 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
    thread::scope(|scope| {
        scope.spawn(|| editor.edit_until(Duration::from_millis(40), &stop));
        let is_loading = format!(
            "SELECT (EXISTS (
                SELECT FROM content.film_work
                WHERE indexed_at IS NULL AND rejected_at IS NULL AND touched_at < '{started}'
            ))::integer::float8"
        );
        let deadline = Instant::now() + limit;
        while number(&mut client, &is_loading) > 0.0 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(100));
        }
        stop.store(true, Ordering::Relaxed);
    });
    wait_until_settled(&mut client, limit);
    drop(program);
    report_p99("during a full load", &editor.latencies(), report);
}

/// Tells how long the slowest of a hundred edits took.
pub fn report_p99(when: &str, latencies: &[f64], report: &mut Report) {
    let what = format!("edit until acknowledged, {when}, p99 of {}", latencies.len());
    report.add(what, percentile(latencies, 99) / 1000.0, "s", AtMost(1.5));
}
