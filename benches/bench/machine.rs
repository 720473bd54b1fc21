//! Processor time, memory and processor cores of processes, from `/proc`.

use std::process::{self, Command, Stdio};
use std::{env, fs};

/// `/proc` counts in ticks of this many a second, on all Linux systems of today.
const TICKS: f64 = 100.0;

/// What runs on this machine, as far as it is ours to look at. None of the caller's own servers.
#[derive(Debug)]
pub struct Machine {
    pub postmaster: Option<u32>,
    pub engine: Option<u32>,
}

impl Machine {
    /// Reads what `dev/servers` says of the servers that it has started.
    pub fn from_env() -> Self {
        let text = |name| env::var(name).ok().filter(|text: &String| !text.is_empty());
        let postmaster = text("ETL_DEV_PG_DATA")
            .and_then(|folder| fs::read_to_string(format!("{folder}/postmaster.pid")).ok())
            .and_then(|file| file.lines().next()?.parse().ok());
        let engine = text("ETL_DEV_ENGINE_PID").and_then(|pid| pid.parse().ok());
        Self { postmaster, engine }
    }

    /// Processor seconds of all of PostgreSQL's processes, also of those that have ended.
    pub fn postgres_seconds(&self) -> Option<f64> {
        let postmaster = self.postmaster?;
        let mut seconds = 0.0;
        // A session that ends between two reads would be missed: it is no child any more, and not yet
        // among those that have ended.
        for _ in 0..20 {
            let before = Stat::read(postmaster)?;
            let sessions: f64 = children(postmaster).map(|(_, stat)| stat.seconds).sum();
            seconds = before.seconds + before.children_seconds + sessions;
            if Stat::read(postmaster)?.children_seconds <= before.children_seconds {
                break;
            }
        }
        Some(seconds)
    }

    /// Processor seconds of PostgreSQL's processes that run, without those of autovacuum.
    pub fn postgres_seconds_but_autovacuum(&self) -> Option<f64> {
        let is_autovacuum = |pid: u32| {
            let name = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            name.contains("autovacuum")
        };
        let others = children(self.postmaster?).filter(|(pid, _)| !is_autovacuum(*pid));
        Some(others.map(|(_, stat)| stat.seconds).sum())
    }

    /// Keeps a process and all its threads to these cores.
    fn pin(pid: u32, cores: &str) -> bool {
        let mut command = Command::new("taskset");
        command.args(["-a", "-c", "-p", cores, &pid.to_string()]).stdout(Stdio::null());
        // A thread that has just ended makes it fail; the others are done.
        command.stderr(Stdio::null()).status().is_ok()
    }

    /// Gives the engine these cores, and everything else those. Says whether it could.
    pub fn pin_all(&self, engine_cores: &str, others: &str) -> bool {
        let (Some(engine), Some(postmaster)) = (self.engine, self.postmaster) else { return false };
        let backends = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            Stat::read(pid).filter(|stat| stat.parent == postmaster).map(|_| pid)
        });
        let others_pinned: Vec<bool> =
            backends.chain([postmaster, process::id()]).map(|pid| Self::pin(pid, others)).collect();
        Self::pin(engine, engine_cores) && others_pinned.iter().all(|done| *done)
    }
}

/// The first two cores that we may use, by their numbers.
pub fn two_cores() -> Option<[String; 2]> {
    let list = status(process::id(), "Cpus_allowed_list:")?;
    let mut cores = list.split(',').flat_map(|range| {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        from.parse::<usize>().unwrap_or(0)..=to.parse().unwrap_or(0)
    });
    Some([cores.next()?.to_string(), cores.next()?.to_string()])
}

/// How many threads wanted a core over the last minute. Above the number of cores others were at work, too.
pub fn load_average() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

/// The largest resident memory of a process so far, in MB.
pub fn peak_memory(pid: u32) -> Option<f64> {
    let kilobytes: f64 =
        status(pid, "VmHWM:")?.split_whitespace().next().and_then(|text| text.parse().ok())?;
    Some(kilobytes * 1024.0 / 1e6)
}

/// Processor seconds of the threads of a process that runs, to the nanosecond: an idle one comes to a few ticks of
/// 10 ms.
pub fn seconds(pid: u32) -> Option<f64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let nanoseconds = threads.flatten().map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    nanoseconds.sum::<Option<f64>>().map(|sum| sum / 1e9)
}

/// Processor seconds of our children that have ended.
pub fn ended_children_seconds() -> f64 {
    Stat::read(process::id()).expect("read /proc/self/stat").children_seconds
}

fn status(pid: u32, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().to_owned())
}

/// The processes of a parent.
fn children(parent: u32) -> impl Iterator<Item = (u32, Stat)> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(move |entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = Stat::read(pid).filter(|stat| stat.parent == parent)?;
        Some((pid, stat))
    })
}

struct Stat {
    parent: u32,
    seconds: f64,
    children_seconds: f64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name before may have blanks and brackets of its own.
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        let ticks = |place: usize| fields.get(place)?.parse::<f64>().ok();
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            seconds: (ticks(11)? + ticks(12)?) / TICKS,
            children_seconds: (ticks(13)? + ticks(14)?) / TICKS,
        })
    }
}
