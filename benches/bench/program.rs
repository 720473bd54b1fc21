//! The program as a process, with what it costs.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::machine;
use crate::support::world::World;

/// What a run of the program has cost.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// From its start to its end.
    pub seconds: f64,
    /// Processor time.
    pub cpu_seconds: f64,
    /// Its largest resident memory, in MB.
    pub peak_memory: f64,
}

/// A command of the program. The one place where arguments for all commands are added.
fn command(world: &World, args: &[&str], engine_url: Option<&str>) -> Command {
    let mut command = world.etl(args);
    if let Some(url) = engine_url {
        command.env("ELASTICSEARCH_URL", url);
    }
    let log = File::create(log_path()).expect("create the log");
    command.stdout(Stdio::null()).stderr(log);
    command
}

fn log_path() -> String {
    format!("{}/bench.log", env!("CARGO_TARGET_TMPDIR"))
}

/// The program, running. Killed when dropped.
pub struct Program {
    child: Child,
    args: String,
}

impl Program {
    /// Starts a command of the program.
    pub fn spawn(world: &World, args: &[&str]) -> Self {
        Self::spawn_with_engine(world, args, None)
    }

    /// Starts `etl start` with another way to the engine.
    pub fn start_by_way_of(world: &World, engine_url: &str) -> Self {
        Self::spawn_with_engine(world, &["start"], Some(engine_url))
    }

    fn spawn_with_engine(world: &World, args: &[&str], engine_url: Option<&str>) -> Self {
        let child = command(world, args, engine_url).spawn().expect("start etl");
        Self { child, args: args.join(" ") }
    }

    /// The id of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end, which is to be a good one, and looks at its memory until then.
    fn wait_for_end(&mut self, limit: Duration) -> f64 {
        let deadline = Instant::now() + limit;
        let mut peak = 0.0;
        loop {
            peak = machine::peak_memory(self.id()).unwrap_or(peak);
            if let Some(status) = self.child.try_wait().expect("ask for the exit code") {
                assert!(status.success(), "`etl {}` failed\n{}", self.args, said());
                return peak;
            }
            assert!(Instant::now() < deadline, "`etl {}` does not end\n{}", self.args, said());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn said() -> String {
    fs::read_to_string(log_path()).unwrap_or_default()
}

/// Runs a command of the program to its end.
pub fn run(world: &World, args: &[&str], limit: Duration) -> Cost {
    let cpu_before = machine::ended_children_seconds();
    let started = Instant::now();
    let mut program = Program::spawn(world, args);
    let peak_memory = program.wait_for_end(limit);
    let seconds = started.elapsed().as_secs_f64();
    drop(program);
    let cpu_seconds = machine::ended_children_seconds() - cpu_before;
    Cost { seconds, cpu_seconds, peak_memory }
}

/// Makes the index anew, so that everything is to be loaded.
pub fn init(world: &World, films: usize) -> Cost {
    run(world, &["init-es"], limit(films))
}

/// Loads everything that is pending.
pub fn load(world: &World, films: usize) -> Cost {
    run(world, &["start", "--until-idle"], limit(films))
}

/// How long a load of so many films may take at most.
pub fn limit(films: usize) -> Duration {
    Duration::from_secs(60 + films as u64 / 200)
}
