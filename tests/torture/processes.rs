//! Faults of processes: killed, frozen, cut off, in each other's way.

use std::process::Stdio;
use std::thread;
use std::time::Duration;

use fastrand::Rng;

use crate::index::{drop_index, remake_index, remove_alias};
use crate::once::{KILLED, LEAD_LOST, ONCE};
use crate::rebuilds::{rebuild_and_leave, rebuild_and_search};
use crate::rivals::wait_until;
use crate::servers::Schedule;
use crate::stage::{Mood, Stage};
use crate::support::proxy::Fault;

/// Breaks something, and mends it.
pub type Cause = fn(&Stage, &mut Rng);

/// How often each comes, in relation to the others.
const KINDS: [(&str, u32, Cause); 17] = [
    ("leader killed", 6, |stage, rng| kill(stage, rng, &leader(stage))),
    ("standby killed", 2, |stage, rng| kill(stage, rng, &standby(stage))),
    ("both killed", 1, |stage, rng| kill(stage, rng, &[0, 1])),
    ("leader frozen", 5, |stage, rng| freeze(stage, rng, &leader(stage))),
    ("standby frozen", 1, |stage, rng| freeze(stage, rng, &standby(stage))),
    ("sessions ended", 5, end_sessions),
    ("lead lost unnoticed", 4, |stage, rng| LEAD_LOST[rng.usize(..3)](stage, rng)),
    (KILLED.0, 3, KILLED.1),
    ("request hangs, leader killed", 2, hang_and_kill),
    ("init-es beside the leader", 2, |stage, _| init_es(stage)),
    ("init-es beside a request", 3, init_es_beside_request),
    ("init-es beside a frozen leader", 1, init_es_beside_frozen),
    ("init-es killed, and run again", 1, init_es_killed),
    ("index dropped", 1, |stage, rng| drop_index(stage, rng)),
    ("index dropped and made again by hand", 1, |stage, rng| remake_index(stage, rng)),
    ("alias removed", 1, |stage, rng| remove_alias(stage, rng)),
    ("rebuild asked for", 4, rebuild_and_leave),
];

/// Breaks things until the end.
pub fn run(stage: &Stage, mut rng: Rng) {
    let mut turn = rng.usize(..ONCE.len());
    let mut schedule = Schedule::new(stage, &mut rng);
    while !stage.has_ended() {
        stage.pause(&mut rng, 200, if stage.mood() == Mood::Anything { 2_500 } else { 1_000 });
        if let Some((name, cause)) = schedule.next(stage) {
            cause_fault(stage, &mut rng, name, cause);
            continue;
        }
        let gate = stage.gate.read().unwrap();
        if stage.has_ended() {
            return;
        }
        match stage.mood() {
            Mood::Anything => {
                let (name, cause) = draw(&mut rng);
                cause_fault(stage, &mut rng, name, cause);
            }
            Mood::Once => {
                turn += 1;
                let (name, cause) = ONCE[turn % ONCE.len()];
                cause_fault(stage, &mut rng, name, cause);
            }
            Mood::Rebuilds => cause_fault(stage, &mut rng, "rebuild", rebuild_and_search),
            Mood::LateRequests | Mood::Restart | Mood::Nothing => (),
        }
        drop(gate);
    }
}

fn cause_fault(stage: &Stage, rng: &mut Rng, name: &'static str, cause: Cause) {
    let began = stage.history.now();
    cause(stage, rng);
    stage.history.note(began, "fault", name.to_owned());
    stage.history.count("faults", name);
    stage.children.revive(&stage.history);
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
pub fn leader(stage: &Stage) -> Vec<usize> {
    find_leader(stage).into_iter().collect()
}

/// The slot of the process whose session holds the lock.
pub fn find_leader(stage: &Stage) -> Option<usize> {
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

pub fn kill(stage: &Stage, rng: &mut Rng, slots: &[usize]) {
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

pub fn end_sessions(stage: &Stage, rng: &mut Rng) {
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
pub fn init_es(stage: &Stage) {
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

/// The engine has carried the request out, and its answer comes when the index is another one.
fn init_es_beside_request(stage: &Stage, rng: &mut Rng) {
    stage.plan(&[Fault::SlowAnswer(Duration::from_millis(rng.u64(1_000..4_000)))]);
    let before = stage.bulk_requests();
    wait_until(1_000, || stage.bulk_requests() > before);
    init_es(stage);
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
