//! PostgreSQL that crashes, fails over, or is put back to an earlier state: what it has is what the
//! index has, or the program says that the stamps may not be true.

use std::thread;
use std::time::Duration;

use postgres::Client;

use crate::support::cluster::{Cluster, Stop};
use crate::support::proxy::{Fault, Proxy};
use crate::support::wait::wait_until;
use crate::support::world::World;

const FILMS: &str = "INSERT INTO content.film_work (id, title)
    SELECT ('00000000-0000-4000-9000-' || lpad(n::text, 12, '0'))::uuid, 'Film ' || n FROM generate_series(1, 200) AS n;";

/// The id of film number `number`.
fn film(number: u32) -> String {
    format!("00000000-0000-4000-9000-{number:012}")
}

/// Makes sure that the program says what is wrong and how it is mended, sends nothing, and that
/// this does mend it.
#[track_caller]
fn check_refused_until_init_es(world: &mut World, complaint: &str) {
    let before = world.engine.documents();
    let line = world.fail(&["start", "--until-idle"]);
    assert!(line.contains(complaint) && line.contains("run `etl init-es`"), "{line}");
    assert_eq!(world.engine.documents(), before, "something was sent");
    assert!(world.difference().is_some(), "the test shows nothing: the index is right as it is");
    world.succeed(&["init-es"]);
    world.sync();
    world.check_in_step();
}

/// A writer who does not wait for the log is seen before the log is safe. The program has to flush it
/// before it sends: otherwise the index keeps what PostgreSQL has never had.
#[test]
fn what_was_sent_survives_a_crash_of_postgresql_even_if_its_writer_did_not_wait_for_the_log() {
    let Some(mut cluster) = Cluster::new("durable_log") else { return };
    let mut world = World::on_server("durable_log", cluster.url());
    world.sql(FILMS);
    let proxy = Proxy::new(&world.engine.url);
    let running = world.spawn(&["start", "--elasticsearch-url", &proxy.url]);
    world.wait_in_step();
    for round in 1..=10 {
        wait_until("nothing is pending", || pending(&mut world.client) == 0);
        // The crash comes between the engine's answer and the stamp, whose commit would flush the log.
        proxy.plan([Fault::SlowAnswer(Duration::from_secs(1))]);
        let (change, title) = if round % 2 == 0 {
            ("DELETE FROM content.film_work", None)
        } else {
            ("UPDATE content.film_work SET title = 'edited'", Some("edited".to_owned()))
        };
        let film = film(round);
        world.sql(&format!("SET synchronous_commit = off; {change} WHERE id = '{film}'"));
        wait_until("the change is in the index", || indexed_title(&world, &film) == title);
        cluster.restart(Stop::Immediate);
        world.client = world.database.client();
        let sql = format!("SELECT title FROM content.film_work WHERE id = '{film}'");
        let recovered = world.client.query_opt(&sql, &[]).unwrap().map(|row| row.get(0));
        assert_eq!(recovered, title, "the index has what PostgreSQL has lost, round {round}");
        world.wait_in_step();
    }
    running.end();
}

fn pending(client: &mut Client) -> i64 {
    let sql = "SELECT count(*) FROM content.film_work WHERE indexed_at IS NULL";
    client.query_one(sql, &[]).unwrap().get(0)
}

/// Returns the title of a film in the index, if it is there.
fn indexed_title(world: &World, film: &str) -> Option<String> {
    // Not a search: this sees what was written a moment ago.
    let path = format!("/{}/_doc/{film}", world.engine.alias());
    let (_, answer) = world.engine.request("GET", &path, None);
    answer["_source"]["title"].as_str().map(str::to_owned)
}

#[test]
fn postgresql_that_is_restored_to_a_point_in_time_is_noticed() {
    let Some(mut cluster) = Cluster::new("durable_point") else { return };
    cluster.keep_log();
    let mut world = World::on_server("durable_point", cluster.url());
    world.sql(FILMS);
    world.sync();
    cluster.back_up("backup");
    world.sql(&format!("UPDATE content.film_work SET title = 'kept' WHERE id = '{}'", film(1)));
    world.sql("SELECT pg_create_restore_point('before')");
    // It is noticed also by a process that is at work while it happens.
    let running = world.spawn(&["start"]);
    world.sql(&format!("UPDATE content.film_work SET title = 'undone' WHERE id = '{}'", film(1)));
    world.sql(&format!("DELETE FROM content.film_work WHERE id = '{}'", film(2)));
    world.wait_in_step();
    cluster.stop(Stop::Fast);
    cluster.recover("backup", "before");
    world.client = world.database.client();
    let titles = "SELECT FROM content.film_work WHERE title = 'kept'";
    assert_eq!(world.client.query(titles, &[]).unwrap().len(), 1, "not the state that was meant");
    let alone = "SELECT FROM pg_locks WHERE locktype = 'advisory'";
    wait_until("it leads again", || !world.client.query(alone, &[]).unwrap().is_empty());
    thread::sleep(Duration::from_secs(1));
    assert!(world.difference().is_some(), "nothing can be right before `etl init-es`");
    let said = running.end().stderr;
    assert!(
        said.lines().any(|line| line.contains("ERROR") && line.contains("copied or failed over")),
        "{said}"
    );
    check_refused_until_init_es(&mut world, "restored, copied or failed over");
}

#[test]
fn a_standby_that_has_taken_over_is_not_taken_for_the_former_server() {
    let Some(mut cluster) = Cluster::new("durable_failover") else { return };
    let mut world = World::on_server("durable_failover", cluster.url());
    world.sql(FILMS);
    world.sync();
    let mut standby = cluster.make_standby("durable_standby");
    wait_until("the standby follows", || {
        let sql = "SELECT FROM pg_stat_replication WHERE state = 'streaming'";
        !world.client.query(sql, &[]).unwrap().is_empty()
    });
    // What the standby never gets is lost by the failover, but not from the index.
    standby.stop(Stop::Fast);
    world.sql(&format!("UPDATE content.film_work SET title = 'lost' WHERE id = '{}'", film(1)));
    world.sync();
    cluster.stop(Stop::Immediate);
    standby.start();
    standby.promote();
    world.database.move_to(standby.url());
    world.client = world.database.client();
    check_refused_until_init_es(&mut world, "restored, copied or failed over");
}

#[test]
fn an_older_copy_of_the_volume_is_noticed_if_another_term_began_since() {
    let Some(mut cluster) = Cluster::new("durable_volume") else { return };
    let mut world = World::on_server("durable_volume", cluster.url());
    world.sql(FILMS);
    world.sync();
    cluster.stop(Stop::Fast);
    cluster.save_volume("copy");
    cluster.start();
    world.client = world.database.client();
    for title in ["once", "twice"] {
        world.sql(&format!(
            "UPDATE content.film_work SET title = '{title}' WHERE id = '{}'",
            film(1)
        ));
        world.sync();
    }
    cluster.stop(Stop::Fast);
    cluster.restore_volume("copy");
    cluster.start();
    world.client = world.database.client();
    check_refused_until_init_es(&mut world, "was written under epoch");
}

#[test]
fn postgresql_that_is_restarted_is_waited_for_and_the_rest_follows() {
    let Some(mut cluster) = Cluster::new("durable_restart") else { return };
    let mut world = World::on_server("durable_restart", cluster.url());
    let running = world.spawn(&["start", "--batch-size", "5"]);
    world.sql(FILMS);
    for how in [Stop::Fast, Stop::Immediate, Stop::Fast, Stop::Immediate] {
        world.sql("UPDATE content.film_work SET title = title || '!'");
        wait_until("some films are stamped", || pending(&mut world.client) < 200);
        let left = pending(&mut world.client);
        cluster.restart(how);
        world.client = world.database.client();
        assert!(left > 0, "the test shows nothing: no film was pending");
        world.wait_in_step();
    }
    running.end();
}

#[test]
fn sessions_that_are_ended_again_and_again_only_make_it_slower() {
    let mut world = World::new("durable_sessions");
    world.sql(FILMS);
    let running = world.spawn(&["start", "--batch-size", "5"]);
    let mut administrator = world.database.client();
    let end_some = "SELECT pg_terminate_backend(pid) FROM (
            SELECT pid, row_number() OVER (ORDER BY pid) AS number FROM pg_stat_activity
            WHERE datname = current_database() AND application_name LIKE 'etl%') AS sessions
        WHERE number % 2 = $1";
    let mut ended = 0;
    for round in 0..40_i64 {
        let film = film(1 + u32::try_from(round).unwrap());
        world.sql(&format!(
            "UPDATE content.film_work SET title = 'round {round}' WHERE id = '{film}'"
        ));
        ended += administrator.query(end_some, &[&(round % 2)]).unwrap().len();
        thread::sleep(Duration::from_millis(100));
    }
    assert!(ended >= 5, "only {ended} sessions were there to be ended");
    world.wait_in_step();
    running.end();
}
