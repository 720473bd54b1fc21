//! The two `etl start`, of which one leads.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{env, process, thread};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::history::History;
use crate::support::command::{Outcome, etl, run};
use crate::support::world::ALL_KINDS;

/// The two `etl start`.
pub struct Children {
    database_urls: [String; 2],
    prefix: String,
    engine_urls: [String; 2],
    logs: [PathBuf; 2],
    slots: Mutex<[Option<Child>; 2]>,
}

impl Children {
    /// None runs yet.
    pub fn new(database_urls: [String; 2], prefix: String, engine_urls: [String; 2]) -> Self {
        let folder = env::temp_dir();
        let logs = [0, 1].map(|slot| folder.join(format!("etl_torture_{}_{slot}", process::id())));
        Self { database_urls, prefix, engine_urls, logs, slots: Mutex::default() }
    }

    fn slots(&self) -> MutexGuard<'_, [Option<Child>; 2]> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A command of `etl` as the process of a slot would run it.
    pub fn command(&self, slot: usize, args: &[&str]) -> Command {
        let mut command = etl(args);
        command
            .env("DATABASE_URL", &self.database_urls[slot])
            .env("ELASTICSEARCH_URL", &self.engine_urls[slot])
            .env("ETL_KINDS", ALL_KINDS)
            .env("ETL_INDEX_PREFIX", &self.prefix);
        command
    }

    /// Starts the process of a slot, if it does not run.
    pub fn start(&self, slot: usize, batch_size: &str) {
        let mut slots = self.slots();
        if slots[slot].is_some() {
            return;
        }
        let log = File::options().create(true).append(true).open(&self.logs[slot]);
        let child = self
            .command(slot, &["start", "--rebuild-lost-index", "--batch-size", batch_size])
            .stdout(Stdio::null())
            .stderr(log.expect("open the log"))
            .spawn();
        slots[slot] = Some(child.expect("start etl"));
    }

    /// Kills the process of a slot.
    pub fn kill(&self, slot: usize) {
        if let Some(mut child) = self.slots()[slot].take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends a signal to the processes of these slots.
    pub fn signal(&self, slots: &[usize], signal: &str) {
        for slot in slots {
            if let Some(child) = &self.slots()[*slot] {
                let id = child.id().to_string();
                let _ = Command::new("kill").args([signal, &id]).stderr(Stdio::null()).status();
            }
        }
    }

    /// Kills both and exits when this process is told to end, as by Ctrl-C.
    pub fn exit_on_signals(self: &Arc<Self>) {
        let mut signals = Signals::new([SIGINT, SIGTERM]).expect("handle signals");
        let children = Arc::clone(self);
        thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                // Held to the end, so that nobody starts another one.
                let mut slots = children.slots();
                for child in slots.iter_mut().flatten() {
                    let _ = child.kill();
                }
                process::exit(128 + signal);
            }
        });
    }

    /// Finds the slot of a process.
    pub fn find(&self, pid: u32) -> Option<usize> {
        self.slots().iter().position(|child| child.as_ref().is_some_and(|child| child.id() == pid))
    }

    /// Starts what has ended by itself, and counts that: a supervisor would do so, too.
    pub fn revive(&self, history: &History) {
        for slot in 0..2 {
            let ended = self.slots()[slot]
                .as_mut()
                .is_some_and(|child| child.try_wait().expect("ask for the exit code").is_some());
            if ended {
                self.kill(slot);
                let tail = self.tail(slot, 1);
                history.note(history.now(), "fault", format!("etl {slot} has ended: {tail}"));
                history.count("processes that ended by themselves", &format!("etl {slot}"));
            }
            self.start(slot, "1000");
        }
    }

    /// Runs another command of `etl` to its end.
    pub fn run(&self, args: &[&str]) -> Outcome {
        run(self.command(0, args))
    }

    /// The last lines that the process of a slot has logged.
    pub fn tail(&self, slot: usize, count: usize) -> String {
        let log = fs::read(&self.logs[slot]).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }

    /// Kills both.
    pub fn end(&self) {
        for slot in 0..2 {
            self.kill(slot);
            let _ = fs::remove_file(&self.logs[slot]);
        }
    }
}
