//! Faults of processes and servers: killed, frozen, cut off, restarted.

use std::env;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::stage::Stage;
use crate::support::proxy::Fault;

type Cause = fn(&Stage, &mut Rng);
type Restart = fn(&Stage) -> bool;

/// How often each comes, in relation to the others.
const KINDS: [(&str, u32, Cause); 10] = [
    ("leader killed", 6, |stage, rng| kill(stage, rng, &leader(stage))),
    ("standby killed", 2, |stage, rng| kill(stage, rng, &standby(stage))),
    ("both killed", 1, |stage, rng| kill(stage, rng, &[0, 1])),
    ("leader frozen", 5, |stage, rng| freeze(stage, rng, &leader(stage))),
    ("standby frozen", 1, |stage, rng| freeze(stage, rng, &standby(stage))),
    ("sessions ended", 5, end_sessions),
    ("request hangs, leader killed", 2, hang_and_kill),
    ("init-es beside the leader", 2, |stage, _| init_es(stage)),
    ("init-es beside a frozen leader", 1, init_es_beside_frozen),
    ("init-es killed, and run again", 1, init_es_killed),
];

/// Breaks things until the end.
pub fn run(stage: &Stage, mut rng: Rng) {
    let mut restart = stage.history.now() + 20.0;
    let restarts: [(&str, Restart); 2] =
        [("engine restarted", restart_engine), ("PostgreSQL restarted", restart_postgres)];
    let mut restarted = 0;
    while !stage.has_ended() {
        stage.pause(&mut rng, 200, 2_500);
        let gate = stage.gate.read().unwrap();
        if stage.has_ended() {
            return;
        }
        let began = stage.history.now();
        let name = if stage.is_long && began > restart {
            restart = began + 45.0;
            let (name, cause) = restarts[restarted % 2];
            restarted += 1;
            if !cause(stage) {
                continue;
            }
            stage.restarted.store(true, Ordering::SeqCst);
            name
        } else {
            let (name, cause) = draw(&mut rng);
            cause(stage, &mut rng);
            name
        };
        stage.history.note(began, "fault", name.to_owned());
        stage.history.count("faults", name);
        stage.children.revive(&stage.history);
        drop(gate);
    }
}

fn draw(rng: &mut Rng) -> (&'static str, Cause) {
    let total: u32 = KINDS.iter().map(|(_, weight, _)| weight).sum();
    let mut left = rng.u32(..total);
    for (name, weight, cause) in KINDS {
        if left < weight {
            return (name, cause);
        }
        left -= weight;
    }
    unreachable!("the weights sum up to their total")
}

/// The slot of the process that leads, if one does.
fn leader(stage: &Stage) -> Vec<usize> {
    find_leader(stage).into_iter().collect()
}

/// The slot of the process whose session holds the lock.
fn find_leader(stage: &Stage) -> Option<usize> {
    let sql = "SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid)
        WHERE l.locktype = 'advisory' AND l.granted AND a.application_name LIKE 'etl leader %'
            AND a.datname = current_database()";
    let row = stage.connect()?.query_opt(sql, &[]).ok()??;
    let pid = row.get::<_, String>(0).rsplit(':').next()?.parse().ok()?;
    stage.children.find(pid)
}

fn standby(stage: &Stage) -> Vec<usize> {
    find_leader(stage).map(|leader| 1 - leader).into_iter().collect()
}

fn kill(stage: &Stage, rng: &mut Rng, slots: &[usize]) {
    for slot in slots {
        stage.children.kill(*slot);
    }
    if rng.bool() {
        stage.pause(rng, 0, 2_000);
    }
    for slot in slots {
        stage.children.start(*slot, rng.choice(["3", "20", "1000"]).expect("some sizes"));
    }
}

fn freeze(stage: &Stage, rng: &mut Rng, slots: &[usize]) {
    stage.children.signal(slots, "-STOP");
    stage.pause(rng, 1_000, 7_000);
    stage.children.signal(slots, "-CONT");
}

fn end_sessions(stage: &Stage, rng: &mut Rng) {
    let which = rng.choice(["LIKE 'etl%'", "= 'etl'", "LIKE 'etl leader%'"]).expect("some names");
    let sql = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name {which}"
    );
    if let Some(mut client) = stage.connect() {
        let _ = client.batch_execute(&sql);
    }
}

fn hang_and_kill(stage: &Stage, rng: &mut Rng) {
    stage.plan(&[Fault::Hang]);
    stage.pause(rng, 300, 1_500);
    // The deadline is a minute: long enough for a run to see nothing else.
    kill(stage, rng, &[0, 1]);
    stage.plan(&[]);
}

/// It may meet a proxy that is broken, or a lock: then it is run again until it is done.
fn init_es(stage: &Stage) {
    for _ in 0..20 {
        let outcome = stage.children.run(&["init-es"]);
        if outcome.code == Some(0) {
            return;
        }
        let last = outcome.stderr.lines().last().unwrap_or_default().to_owned();
        stage.history.note(stage.history.now(), "fault", format!("init-es failed: {last}"));
        stage.history.count("init-es failed", "and was run again");
        thread::sleep(Duration::from_millis(300));
    }
    panic!("init-es failed again and again");
}

fn init_es_beside_frozen(stage: &Stage, rng: &mut Rng) {
    stage.children.signal(&[0, 1], "-STOP");
    init_es(stage);
    stage.pause(rng, 0, 3_000);
    stage.children.signal(&[0, 1], "-CONT");
}

fn init_es_killed(stage: &Stage, rng: &mut Rng) {
    let mut child = stage.children.command(0, &["init-es"]);
    let child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut child = child.expect("start etl");
    stage.pause(rng, 10, 500);
    let _ = child.kill();
    let _ = child.wait();
    init_es(stage);
}

/// Returns the value of a variable that `dev/servers` sets for servers that are its own.
fn setting(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn restart_engine(stage: &Stage) -> bool {
    let Some(start) = setting("ETL_DEV_ENGINE_START") else { return false };
    // The script knows the present process of the engine, the variable only the first one.
    let env_file = std::path::Path::new(&start).with_file_name("env");
    let text = std::fs::read_to_string(env_file).unwrap_or_default();
    let pid = text.split("ETL_DEV_ENGINE_PID=").nth(1).and_then(|rest| rest.lines().next());
    let Some(pid) = pid.filter(|pid| !pid.is_empty()) else { return false };
    let _ = Command::new("kill").args(["-KILL", pid]).status();
    let done = Command::new(start).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(done.is_ok_and(|status| status.success()), "the engine did not start again");
    // What arrives before a leader has noticed is beyond what is promised: it replaces the alias
    // when it finds that the engine was away.
    let epoch = epoch(stage);
    let deadline = Instant::now() + Duration::from_secs(30);
    while epoch == self::epoch(stage) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(200));
    }
    true
}

fn epoch(stage: &Stage) -> Option<i64> {
    Some(stage.connect()?.query_one("SELECT epoch FROM etl.state", &[]).ok()?.get(0))
}

fn restart_postgres(_stage: &Stage) -> bool {
    let variables = (setting("ETL_DEV_PG_BIN"), setting("ETL_DEV_PG_DATA"));
    let (Some(folder), Some(data)) = variables else { return false };
    for command in ["stop", "start"] {
        let program = format!("{folder}/pg_ctl");
        let mut control = match setting("ETL_DEV_PG_USER") {
            None => Command::new(program),
            Some(user) => {
                let mut control = Command::new("setpriv");
                let user = format!("--reuid={user}");
                control.args([&user, "--regid=nogroup", "--clear-groups", &program]);
                control
            }
        };
        control.args(["-D", &data, "-m", "immediate", "-w", "-l", "/dev/null", command]);
        let status = control.stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/").status();
        assert!(status.is_ok_and(|status| status.success()), "pg_ctl {command} failed");
    }
    true
}
