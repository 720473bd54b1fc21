//! Faults of the servers: PostgreSQL and the engine are stopped at once and started again, in long
//! runs and where `dev/servers` says how.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{env, fs, thread};

use fastrand::Rng;

use crate::index::flush;
use crate::network::deliver_late;
use crate::once::delete_films;
use crate::processes::Cause;
use crate::stage::{Mood, Stage};
use crate::statements::contains;
use crate::support::proxy::{Fault, Proxy};

/// While anything may be broken PostgreSQL is restarted, every so many seconds.
const EVERY_S: f64 = 15.0;

/// What is seen only where no other change comes after it, in turn.
const ONCE: [(&str, Cause); 2] = [
    ("PostgreSQL crashed after an edit that it may forget", crash_postgres),
    ("engine restarted", restart_engine),
];

/// When servers are restarted.
pub struct Schedule {
    next_at: f64,
    once: usize,
}

impl Schedule {
    /// Prepares the servers for it.
    pub fn new(stage: &Stage, rng: &mut Rng) -> Self {
        // By itself PostgreSQL flushes what a writer with `synchronous_commit = off` has committed within
        // half a second: too short for much to happen.
        if stage.is_long && Servers::find().is_some() {
            let mut client = stage.connect().expect("connect before anything is broken");
            client.execute("ALTER SYSTEM SET wal_writer_delay = '10s'", &[]).expect("set a delay");
            client.execute("SELECT pg_reload_conf()", &[]).expect("reload the settings");
        }
        Self { next_at: EVERY_S, once: rng.usize(..ONCE.len()) }
    }

    /// Returns what is to be restarted now, if anything is.
    pub fn next(&mut self, stage: &Stage) -> Option<(&'static str, Cause)> {
        let mood = stage.mood();
        if !stage.is_long || stage.has_ended() || Servers::find().is_none() {
            return None;
        }
        if mood == Mood::Restart {
            self.once += 1;
            return Some(ONCE[self.once % ONCE.len()]);
        }
        if mood != Mood::Anything || stage.history.now() < self.next_at {
            return None;
        }
        self.next_at = stage.history.now() + EVERY_S;
        Some(("PostgreSQL restarted", |stage, _| restart_postgres_beside_writers(stage)))
    }
}

/// What `dev/servers` says of servers that are its own.
struct Servers {
    postgres_programs: String,
    postgres_data: String,
    postgres_user: Option<String>,
    start_engine: String,
}

impl Servers {
    fn find() -> Option<Self> {
        let setting = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        Some(Self {
            postgres_programs: setting("ETL_DEV_PG_BIN")?,
            postgres_data: setting("ETL_DEV_PG_DATA")?,
            postgres_user: setting("ETL_DEV_PG_USER"),
            start_engine: setting("ETL_DEV_ENGINE_START")?,
        })
    }

    fn control_postgres(&self, command: &str) {
        let program = format!("{}/pg_ctl", self.postgres_programs);
        let mut control = match &self.postgres_user {
            None => Command::new(program),
            Some(user) => {
                let mut control = Command::new("setpriv");
                let user = format!("--reuid={user}");
                control.args([&user, "--regid=nogroup", "--clear-groups", &program]);
                control
            }
        };
        control.args([
            "-D",
            &self.postgres_data,
            "-m",
            "immediate",
            "-w",
            "-l",
            "/dev/null",
            command,
        ]);
        let status = control.stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/").status();
        assert!(status.is_ok_and(|status| status.success()), "pg_ctl {command} failed");
    }

    fn restart_postgres(&self) {
        self.control_postgres("stop");
        self.control_postgres("start");
    }

    fn restart_engine(&self) {
        // The script knows the present process of the engine, the variable only the first one.
        let env_file = Path::new(&self.start_engine).with_file_name("env");
        let text = fs::read_to_string(env_file).unwrap_or_default();
        let pid = text.split("ETL_DEV_ENGINE_PID=").nth(1).and_then(|rest| rest.lines().next());
        let _ = Command::new("kill").args(["-KILL", pid.expect("a running engine")]).status();
        let mut start = Command::new(&self.start_engine);
        let done = start.stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(done.is_ok_and(|status| status.success()), "the engine did not start again");
    }
}

fn restart_postgres_beside_writers(stage: &Stage) {
    let _gate = stage.gate.read().unwrap();
    if let Some(servers) = Servers::find() {
        stage.restarted.store(true, Ordering::SeqCst);
        servers.restart_postgres();
    }
}

/// Whether a server is to be restarted in this segment. It is the last thing that happens in it.
fn takes_turn(stage: &Stage) -> bool {
    let is_due = stage.mood() == Mood::Restart && !stage.has_ended();
    if is_due {
        stage.restarted.store(true, Ordering::SeqCst);
        stage.set_mood(Mood::Nothing);
    }
    is_due
}

/// The engine forgets the versions of deleted documents when it is restarted, but for those that are still
/// in its log. A leader that finds that
/// it was away replaces the private alias. What arrives before that is beyond what is promised.
fn restart_engine(stage: &Stage, rng: &mut Rng) {
    let _gate = stage.gate.read().unwrap();
    let _no_replays = stage.replays.lock().unwrap();
    if !takes_turn(stage) {
        return;
    }
    let Some(servers) = Servers::find() else { return };
    // What has just been there is to be absent, whatever comes of its past.
    drop(delete_films(stage, rng));
    flush(stage);
    servers.restart_engine();
    if !has_new_term(stage) {
        stage.proxies.iter().for_each(Proxy::forget_recorded);
        return;
    }
    // Nothing of the terms before may get in any more: documents above all, and few of the deletes that would
    // come behind them.
    deliver_late(stage, 1..201, |request| {
        rng.u8(..8) == 0 || rng.bool() && !contains(request, b"{\"delete\"")
    });
}

/// Waits until a film is stamped that was touched now. Returns whether that was so: then a leader has
/// noticed that the engine was away.
fn has_new_term(stage: &Stage) -> bool {
    const ANY: &str = "UPDATE content.film_work SET indexed_at = NULL
        WHERE id = (SELECT id FROM content.film_work ORDER BY random() LIMIT 1)
        RETURNING id::text, touched_at::text";
    const STAMPED: &str = "SELECT FROM content.film_work
        WHERE id::text = $1 AND touched_at::text = $2 AND indexed_at IS NOT NULL";
    let Some(mut client) = stage.connect() else { return false };
    for _ in 0..20 {
        let Ok(Some(row)) = client.query_opt(ANY, &[]) else { return false };
        let (id, touched_at): (String, String) = (row.get(0), row.get(1));
        // Somebody else may touch it, too; then another one is taken.
        for _ in 0..10 {
            if matches!(client.query_opt(STAMPED, &[&id, &touched_at]), Ok(Some(_))) {
                return true;
            }
            stage.children.revive(&stage.history);
            thread::sleep(Duration::from_millis(200));
        }
    }
    false
}

/// A writer commits without waiting for the disk; its document is sent; PostgreSQL crashes before the
/// stamp is written, and may have forgotten the edit. Everybody else is quiet, for any other commit
/// would bring the edit to the disk.
fn crash_postgres(stage: &Stage, rng: &mut Rng) {
    let _quiet = stage.gate.write().unwrap();
    if !takes_turn(stage) {
        return;
    }
    let (Some(servers), Some(mut client)) = (Servers::find(), stage.connect()) else { return };
    stage.calm();
    let pending = "SELECT count(*) FROM content.film_work WHERE indexed_at IS NULL";
    for _ in 0..100 {
        match client.query_one(pending, &[]) {
            Ok(row) if row.get::<_, i64>(0) == 0 => break,
            _ => thread::sleep(Duration::from_millis(100)),
        }
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    let title = format!("may be forgotten {}", since.as_micros());
    stage.plan(&[Fault::SlowAnswer(Duration::from_secs(3))]);
    let sql = format!(
        "SET synchronous_commit = off; UPDATE content.film_work SET title = '{title}'
         WHERE id = (SELECT id FROM content.film_work ORDER BY md5(id::text || '{}') LIMIT 1)",
        rng.u32(..)
    );
    let requests = stage.bulk_requests();
    if client.batch_execute(&sql).is_ok() {
        let deadline = Instant::now() + Duration::from_secs(3);
        while stage.bulk_requests() == requests && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        // The engine carries it out at once; the answer comes later.
        thread::sleep(Duration::from_millis(300));
    }
    servers.restart_postgres();
    stage.plan(&[]);
}
