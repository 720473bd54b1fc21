//! Two processes: who leads, who takes over, and that the one before does no harm.
//!
//! Three things keep what is late from doing harm: the epoch in PostgreSQL, the private write alias in
//! the engine, and the version of each document.

mod defences; // each of the three alone

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::forwarder::Forwarder;
use crate::support::proxy::{Fault, Proxy};
use crate::support::wait::wait_until;
use crate::support::world::{Running, World};

/// Without links, so that every film goes out once.
const FILMS: &str = "INSERT INTO content.film_work (id, title)
    SELECT ('00000000-0000-4000-9000-' || lpad(n::text, 12, '0'))::uuid, 'Film ' || n
    FROM generate_series(1, 6) AS n";

const FILM_1: &str = "00000000-0000-4000-9000-000000000001";
const FILM_2: &str = "00000000-0000-4000-9000-000000000002";

/// How long nobody may lead: four seconds until a silent leader is ended, one until the standby tries
/// again, and the beginning of its term.
const TAKEOVER_MAX: Duration = Duration::from_secs(8);

/// The process that holds the lock of the leader, and for how many seconds its session has been there.
fn leader(world: &mut World) -> Option<(u32, i64)> {
    let holder = "
        SELECT a.application_name, floor(extract(epoch FROM clock_timestamp() - a.backend_start))::bigint
        FROM pg_locks l JOIN pg_stat_activity a USING (pid)
        WHERE l.locktype = 'advisory' AND l.objid = 1 AND l.granted AND a.datname = current_database()";
    let row = world.client.query_opt(holder, &[]).unwrap()?;
    let (_, pid) = row.get::<_, &str>(0).rsplit_once(':').expect("a name with host:pid");
    Some((pid.parse().unwrap(), row.get(1)))
}

#[track_caller]
fn wait_until_it_leads(world: &mut World, running: &Running) {
    let id = running.id();
    wait_until("the process leads", || leader(world).is_some_and(|(pid, _)| pid == id));
}

/// Waits until the index is right and nothing is on its way to it.
#[track_caller]
fn wait_until_nothing_is_pending(world: &mut World) {
    world.wait_in_step();
    let pending = "SELECT FROM content.film_work WHERE indexed_at IS NULL";
    wait_until("nothing is pending", || world.client.query(pending, &[]).unwrap().is_empty());
}

/// Starts a process and waits until it has brought the index in step.
#[track_caller]
fn start_leader(world: &mut World, args: &[&str]) -> Running {
    let running = world.spawn(&[&["start"], args].concat());
    wait_until_it_leads(world, &running);
    wait_until_nothing_is_pending(world);
    running
}

/// Starts a process beside a leader and waits until it stands by.
#[track_caller]
fn start_standby(world: &World, args: &[&str]) -> Running {
    let running = world.spawn(&[&["start"], args].concat());
    running.wait_until_said(&["standing by: another process leads"]);
    running
}

/// Waits until a process has found out that another one leads.
#[track_caller]
fn wait_until_it_stands_by(running: &Running, leader: &Running) {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let name = format!("etl leader {}:{}", host.trim(), leader.id());
    running.wait_until_said(&[&format!("standing by: another process leads ({name}, for ")]);
}

// Standing by ---------------------------------------------------------------------------------

#[test]
fn a_second_process_says_at_once_who_leads_and_since_when_and_sends_nothing() {
    let mut world = World::new("rivals_standby");
    world.sql(FILMS);
    let first = start_leader(&mut world, &[]);
    wait_until("a duration tells", || leader(&mut world).is_some_and(|(_, age)| age >= 2));

    let proxy = Proxy::new(&world.engine.url);
    let started = Instant::now();
    let second = world.spawn(&["start", "--elasticsearch-url", &proxy.url]);
    let line = second.wait_until_said(&["standing by"]);
    assert!(started.elapsed() < Duration::from_secs(3), "took {:?}", started.elapsed());
    wait_until_it_stands_by(&second, &first);
    let (_, age) = leader(&mut world).unwrap();
    let said = line.split(", for ").nth(1).and_then(|rest| rest.split(' ').next());
    let said: i64 = said.and_then(|said| said.parse().ok()).expect("a duration");
    assert!((2..=age + 1).contains(&said), "a session of {age} s: {line}");

    world.sql("UPDATE content.film_work SET title = 'edited'");
    wait_until_nothing_is_pending(&mut world);
    assert_eq!(proxy.bulk_requests(), 0);
    let tries = format!(
        "SELECT FROM pg_stat_activity
         WHERE datname = current_database() AND application_name LIKE 'etl leader %:{}'
             AND query_start > backend_start + interval '2 seconds'",
        second.id()
    );
    wait_until("it has tried again", || !world.client.query(&tries, &[]).unwrap().is_empty());
    let outcome = second.end();
    assert_eq!(outcome.stderr.matches("standing by").count(), 1, "not at every try\n{outcome}");
    first.end();
}

#[test]
fn until_idle_beside_a_leader_waits_until_that_one_has_nothing_left() {
    let mut world = World::new("rivals_until_idle");
    let leader = world.spawn(&["start", "--batch-size", "100"]);
    wait_until_it_leads(&mut world, &leader);
    world.sql(
        "INSERT INTO content.film_work (id, title)
         SELECT gen_random_uuid(), 'Film ' || n FROM generate_series(1, 3000) AS n",
    );
    let outcome = world.succeed(&["start", "--until-idle"]);
    world.check_in_step();
    assert!(outcome.stderr.contains("another process leads (etl leader "), "{outcome}");
    leader.end();
}

/// The seconds that the lines of a standby name.
fn told_seconds(standby: &Running) -> Vec<i64> {
    let said = standby.said();
    let ages = said.lines().filter_map(|line| line.split_once("another process leads ("));
    let ages = ages.filter_map(|(_, rest)| rest.split(", for ").nth(1)?.split(' ').next());
    ages.map(|age| age.parse().expect("a duration")).collect()
}

#[test]
fn a_standby_says_every_half_minute_who_leads() {
    let mut world = World::new("rivals_report");
    let first = start_leader(&mut world, &[]);
    let second = start_standby(&world, &[]);
    thread::sleep(Duration::from_secs(25));
    assert_eq!(told_seconds(&second).len(), 1, "{}", second.said());
    wait_until("it says so again", || told_seconds(&second).len() == 2);
    let told = told_seconds(&second);
    assert!((29..=35).contains(&(told[1] - told[0])), "{told:?}");
    second.end();
    first.end();
}

// Taking over ---------------------------------------------------------------------------------

/// A leader that reaches PostgreSQL by way of a forwarder, and a standby that reaches it directly.
struct Rivals {
    world: World,
    forwarder: Forwarder,
    former: Running,
    standby: Running,
}

impl Rivals {
    fn new(name: &str) -> Self {
        let mut world = World::new(name);
        world.sql(FILMS);
        let forwarder = Forwarder::new(&world.database.url());
        let former = start_leader(&mut world, &["--database-url", forwarder.url()]);
        let standby = start_standby(&world, &[]);
        Self { world, forwarder, former, standby }
    }

    /// Breaks the leader. A film that is edited right after it is in the index in time.
    #[track_caller]
    fn check_takeover(&mut self, break_it: impl FnOnce(&Running, &Forwarder)) {
        let broken = Instant::now();
        break_it(&self.former, &self.forwarder);
        self.world.sql("UPDATE content.film_work SET title = 'after' WHERE title = 'Film 1'");
        self.world.wait_in_step();
        assert!(broken.elapsed() < TAKEOVER_MAX, "took {:?}", broken.elapsed());
        let leader = leader(&mut self.world).map(|(pid, _)| pid);
        assert_eq!(leader, Some(self.standby.id()));
    }

    /// Lets the former leader go on, which becomes the standby.
    #[track_caller]
    fn check_return(mut self, mend_it: impl FnOnce(&Running, &Forwarder)) {
        mend_it(&self.former, &self.forwarder);
        wait_until_it_stands_by(&self.former, &self.standby);
        self.world.sql("UPDATE content.film_work SET title = 'later' WHERE title = 'Film 2'");
        wait_until_nothing_is_pending(&mut self.world);
        self.former.end();
        self.standby.end();
        assert_eq!(self.world.sync(), 0);
        self.world.check_in_step();
    }
}

#[test]
fn a_standby_takes_over_from_a_leader_that_was_killed() {
    let mut rivals = Rivals::new("rivals_killed");
    rivals.check_takeover(|leader, _| leader.signal("-KILL"));
}

#[test]
fn a_standby_takes_over_from_a_leader_that_is_frozen() {
    let mut rivals = Rivals::new("rivals_frozen");
    rivals.check_takeover(|leader, _| leader.signal("-STOP"));
    rivals.check_return(|leader, _| leader.signal("-CONT"));
}

#[test]
fn a_standby_takes_over_from_a_leader_that_is_cut_off() {
    let mut rivals = Rivals::new("rivals_cut");
    rivals.check_takeover(|_, forwarder| forwarder.cut());
    rivals.check_return(|_, forwarder| forwarder.mend());
}

#[test]
fn a_standby_takes_over_from_a_leader_of_which_nothing_is_heard() {
    let mut rivals = Rivals::new("rivals_silent");
    rivals.check_takeover(|_, forwarder| forwarder.silence());
    rivals.check_return(|_, forwarder| forwarder.mend());
}

// The former leader ---------------------------------------------------------------------------

/// Takes the lead from a process that has a request under way, and lets it go on when another one has
/// sent newer documents. It sends nothing any more, and stands by.
#[track_caller]
fn check_former_sends_nothing(
    name: &str,
    fault: Fault,
    take_lead: fn(&mut World, &Running),
    go_on: fn(&Running),
) {
    let mut world = World::new(name);
    world.sql(FILMS);
    let [proxy, others] = [Proxy::new(&world.engine.url), Proxy::new(&world.engine.url)];
    // The titles are all of a page's texts, and the documents are longer than these: the page takes
    // two requests. The first is under way, the second is to follow.
    let one_by_one = ["--bulk-bytes", "1KiB", "--senders", "1"];
    let args = [&one_by_one[..], &["--elasticsearch-url", &proxy.url]].concat();
    let former = start_leader(&mut world, &args);
    assert_eq!(proxy.bulk_requests(), 2);
    let standby = start_standby(&world, &["--elasticsearch-url", &others.url]);
    let sent = proxy.bulk_requests() + 1;
    proxy.plan([fault]);
    world.sql("UPDATE content.film_work SET title = 'old'");
    wait_until("a request is under way", || proxy.bulk_requests() == sent);
    take_lead(&mut world, &former);
    wait_until_it_leads(&mut world, &standby);
    wait_until_nothing_is_pending(&mut world);

    // What is pending now is the other's to send, however long that takes.
    let others_sent = others.bulk_requests() + 1;
    others.plan([Fault::SlowAnswer(Duration::from_secs(1))]);
    world.sql("UPDATE content.film_work SET title = 'new'");
    wait_until("the other one sends", || others.bulk_requests() == others_sent);
    proxy.release();
    go_on(&former);
    wait_until_it_stands_by(&former, &standby);
    wait_until_nothing_is_pending(&mut world);
    former.end();
    standby.end();
    assert_eq!(proxy.bulk_requests(), sent);
    world.check_in_step();
    assert_eq!(world.sync(), 0);
}

#[test]
fn a_leader_that_wakes_up_amid_a_page_sends_nothing_of_it_any_more() {
    check_former_sends_nothing(
        "rivals_wakes_up",
        Fault::HoldAnswer,
        |_, former| former.signal("-STOP"),
        |former| former.signal("-CONT"),
    );
}

#[test]
fn a_leader_whose_lock_was_lost_before_its_request_arrives_does_no_harm() {
    check_former_sends_nothing(
        "rivals_lost_lock",
        Fault::HoldRequest,
        |world, former| {
            world.sql(&format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE datname = current_database() AND application_name LIKE 'etl leader %:{}'",
                former.id()
            ));
        },
        |_| (),
    );
}

#[test]
fn what_is_late_of_an_earlier_term_is_refused() {
    let mut world = World::new("rivals_late");
    world.sql(FILMS);
    world.sync();
    let name = world.engine.indices().remove(0);
    let epoch: i64 = world.client.query_one("SELECT epoch FROM etl.term", &[]).unwrap().get(0);
    world.sync();
    let send = |body: String| -> Value {
        let url = format!("{}/{name}.W{epoch}/_bulk?require_alias=true", world.engine.url);
        let request = ureq::post(url).header("Content-Type", "application/x-ndjson").send(body);
        serde_json::from_str(&request.unwrap().body_mut().read_to_string().unwrap()).unwrap()
    };
    let of_film = json!({ "_id": FILM_1, "version": 9_999_999_999_999_999_u64, "version_type": "external_gte" });
    let document = json!({ "id": FILM_1 });
    let answer = send(format!("{}\n{document}\n", json!({ "index": of_film })));
    assert_eq!(answer["items"][0]["index"]["status"], 404, "{answer}");
    // `require_alias` means nothing to a delete; what keeps it from making an index is the name.
    let answer = send(format!("{}\n", json!({ "delete": of_film })));
    let error = &answer["items"][0]["delete"]["error"]["type"];
    assert_eq!(*error, "invalid_index_name_exception", "{answer}");
    world.check_in_step();
    assert_eq!(world.engine.indices(), [name]);
}

/// In the same term, so that the alias lets it through; the version alone refuses it.
#[test]
fn what_a_sweep_has_deleted_is_not_brought_back_by_a_request_that_arrives_twice() {
    let mut world = World::new("rivals_sweep");
    world.sql(FILMS);
    // By a clock that was ahead: what a sweep takes for a version at the TRUNCATE is lower.
    world.sql(
        "SET etl.syncing = 'on';
         UPDATE content.film_work SET touched_at = touched_at + interval '1 hour';
         SET etl.syncing = 'off'",
    );
    let proxy = Proxy::new(&world.engine.url);
    let leader = start_leader(&mut world, &["--elasticsearch-url", &proxy.url]);
    let requests = proxy.recorded();
    assert!(!requests.is_empty(), "it has sent the films");
    world.sql("TRUNCATE content.film_work CASCADE");
    world.wait_in_step();
    for request in &requests {
        let answer = proxy.deliver(request).expect("an answer");
        assert!(answer.contains("version_conflict_engine_exception"), "{answer}");
    }
    world.check_in_step();
    leader.end();
}
