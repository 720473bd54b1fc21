//! `etl start`: the loop around the step. How it begins, waits, stands by and ends.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::command::run;
use crate::support::proxy::{Fault, Proxy};
use crate::support::wait::wait_until;
use crate::support::world::World;

const FILMS: &str = "INSERT INTO content.film_work (id, title)
    SELECT gen_random_uuid(), 'Film ' || n FROM generate_series(1, 3000) AS n;";

/// A port on which nobody listens.
fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_signal_ends_it_with_exit_code_0_also_while_a_request_is_open() {
    let mut world = World::new("start_signal");
    let proxy = Proxy::new(&world.engine.url);
    for (signal, faults) in [("-TERM", vec![]), ("-INT", vec![]), ("-TERM", vec![Fault::Hang])] {
        proxy.plan(faults);
        let before = proxy.bulk_requests();
        let running = world.spawn(&["start", "--elasticsearch-url", &proxy.url]);
        world.sql("INSERT INTO content.film_work (id, title) VALUES (gen_random_uuid(), 'Film')");
        wait_until("a bulk request is sent", || proxy.bulk_requests() > before);
        running.signal(signal);
        let signalled = Instant::now();
        let outcome = running.wait();
        assert_eq!(outcome.code, Some(0), "{outcome}");
        assert!(signalled.elapsed() < Duration::from_secs(2), "{outcome}");
    }
}

#[test]
fn an_engine_that_is_away_is_waited_for() {
    let mut world = World::new("start_engine_away");
    world.sql(FILMS);
    let proxy = Proxy::new(&world.engine.url);
    proxy.set_up(false);
    let running = world.spawn(&["start", "--elasticsearch-url", &proxy.url]);
    thread::sleep(Duration::from_secs(2));
    proxy.set_up(true);
    world.wait_in_step();
    proxy.set_up(false);
    world.sql("UPDATE content.film_work SET title = title || ' again'");
    thread::sleep(Duration::from_secs(2));
    proxy.set_up(true);
    world.wait_in_step();
    running.signal("-TERM");
    let outcome = running.wait();
    let warnings: Vec<&str> = outcome.stderr.lines().filter(|line| line.contains("WARN")).collect();
    assert!((2..=6).contains(&warnings.len()), "the same is told once\n{outcome}");
    assert!(
        warnings[0].contains("next attempt in ") && warnings[0].contains("to the engine"),
        "{outcome}"
    );
}

#[test]
fn a_database_that_is_away_is_waited_for_and_it_is_said_why() {
    let world = World::new("start_no_database");
    let closed = format!("postgres://postgres@127.0.0.1:{}/movies", closed_port());
    let missing = format!("{}_nowhere", world.database.url());
    for (url, reason) in [(closed, "onnection refused"), (missing, "does not exist")] {
        let running = world.spawn(&["start", "--database-url", &url]);
        thread::sleep(Duration::from_secs(2));
        let outcome = running.end();
        let warnings: Vec<&str> =
            outcome.stderr.lines().filter(|line| line.contains("WARN")).collect();
        assert_eq!(warnings.len(), 1, "the same is told once\n{outcome}");
        assert!(warnings[0].contains(reason), "{outcome}");
    }
}

#[test]
fn a_state_that_does_not_fit_is_said_with_the_remedy_and_nothing_is_sent() {
    let mut world = World::new("start_state");
    world.sql(FILMS);
    world.sync();
    let name = world.engine.indices().remove(0);
    let alias = world.engine.alias();
    world.sql("UPDATE content.film_work SET title = 'pending' WHERE title = 'Film 1'");

    let line = world.fail(&["start", "--until-idle", "--index-prefix", "other-"]);
    assert!(line.contains("`other-`") && line.contains("`etl init-es`"), "{line}");

    check_state(&mut world, "cluster_uuid = 'AnotherCluster'", "the engine is cluster ");
    check_state(&mut world, "system_identifier = '7'", "restored, copied or failed over");
    check_state(&mut world, "timeline = '00000009'", "restored, copied or failed over");
    check_state(&mut world, "index_uuid = 'AnotherIndex'", "deleted and made again");
    check_state(&mut world, "index_name = index_name || 'x'", "is missing");

    let remove = json!({ "actions": [{ "remove": { "index": name, "alias": alias } }] });
    world.engine.succeed("POST", "/_aliases", Some(&remove));
    let line = world.fail(&["start", "--until-idle"]);
    assert!(
        line.contains(&format!("the alias {alias} was removed from the index {name}")),
        "{line}"
    );
    let add = json!({ "actions": [{ "add": { "index": name, "alias": alias } }] });
    world.engine.succeed("POST", "/_aliases", Some(&add));

    assert!(world.difference().is_some(), "nothing has been sent so far");
    assert_eq!(world.sync(), 1);
    world.check_in_step();
}

/// Changes the state, has `start` complain about it, and changes it back.
#[track_caller]
fn check_state(world: &mut World, change: &str, complaint: &str) {
    world.sql(&format!("CREATE TABLE was AS TABLE etl.state; UPDATE etl.state SET {change}"));
    let line = world.fail(&["start", "--until-idle"]);
    assert!(line.contains(complaint) && line.contains("`etl init-es"), "{line}");
    world.sql("DELETE FROM etl.state; INSERT INTO etl.state TABLE was; DROP TABLE was");
}

#[test]
fn a_copy_of_the_database_is_not_taken_for_the_original() {
    let mut world = World::new("start_copy");
    world.sql(FILMS);
    world.sync();
    let url = world.database.url();
    let (server, name) = url.rsplit_once('/').unwrap();
    let (name, _) = name.split_once('?').unwrap_or((name, ""));
    let copy = format!("{name}_copy");
    world.sql("SELECT"); // The session of the test must not be in the original while it is copied.
    let mut other =
        postgres::Client::connect(&format!("{server}/postgres"), postgres::NoTls).unwrap();
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
    other.execute(end, &[&name]).unwrap();
    other.batch_execute(&format!("CREATE DATABASE {copy} TEMPLATE {name}")).unwrap();
    let line =
        world.fail(&["start", "--until-idle", "--database-url", &format!("{server}/{copy}")]);
    other.batch_execute(&format!("DROP DATABASE {copy} WITH (FORCE)")).unwrap();
    assert!(
        line.contains("restored, copied or failed over") && line.contains("`etl init-es`"),
        "{line}"
    );
    world.client = world.database.client();
    assert_eq!(world.sync(), 0);
}

#[test]
fn an_older_state_than_the_index_knows_is_noticed() {
    let mut world = World::new("start_older");
    world.sql(FILMS);
    world.sync();
    world.sql("UPDATE etl.term SET epoch = 1");
    let line = world.fail(&["start", "--until-idle"]);
    assert!(line.contains("was written under epoch") && line.contains("`etl init-es`"), "{line}");
}

#[test]
fn a_steady_trickle_of_edits_does_not_keep_a_load_from_its_end() {
    let mut world = World::new("start_trickle");
    world.sql(FILMS);
    let edits = thread::spawn({
        let mut client = world.database.client();
        move || {
            let until = Instant::now() + Duration::from_secs(20);
            while Instant::now() < until {
                let edit =
                    "UPDATE content.film_work SET description = 'edited' WHERE title = 'Film 1'";
                client.batch_execute(edit).unwrap();
                thread::sleep(Duration::from_millis(2));
            }
        }
    });
    let running = world.spawn(&["start", "--batch-size", "20"]);
    wait_until("all films are loaded beside the edits", || world.engine.documents().len() == 3_000);
    assert!(!edits.is_finished(), "the load has waited for the end of the edits");
    edits.join().unwrap();
    world.wait_in_step();
    running.end();
}

#[test]
fn a_table_that_is_being_altered_is_waited_for() {
    let mut world = World::new("start_altered");
    world.sql(FILMS);
    let mut other = world.database.client();
    let mut transaction = other.transaction().unwrap();
    transaction.batch_execute("LOCK TABLE content.film_work IN ACCESS EXCLUSIVE MODE").unwrap();
    let running = world.spawn(&["start", "--until-idle"]);
    thread::sleep(Duration::from_secs(7));
    transaction.rollback().unwrap();
    let outcome = running.wait();
    assert_eq!(outcome.code, Some(0), "{outcome}");
    world.check_in_step();
}

#[test]
fn an_index_that_was_deleted_behind_our_back_is_noticed_while_running() {
    let mut world = World::new("start_deleted");
    world.sql(FILMS);
    let running = world.spawn(&["start"]);
    world.wait_in_step();
    let name = world.engine.indices().remove(0);
    world.engine.succeed("DELETE", &format!("/{name}"), None);
    thread::sleep(Duration::from_secs(4));
    world.succeed(&["init-es"]);
    world.wait_in_step();
    running.signal("-TERM");
    let outcome = running.wait();
    let said = format!("the index {name} is missing: run `etl init-es ");
    assert!(
        outcome.stderr.lines().any(|line| line.contains("ERROR") && line.contains(&said)),
        "{outcome}"
    );
}

#[test]
fn what_is_no_engine_is_not_taken_for_one() {
    let world = World::new("start_no_engine");
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", server.local_addr().unwrap());
    thread::spawn(move || {
        for mut client in server.incoming().map_while(Result::ok).take(4) {
            let _ = client.read(&mut [0; 4096]);
            let page = "<html>It works!</html>";
            let _ =
                write!(client, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{page}", page.len());
        }
    });
    for command in [&["start", "--until-idle"][..], &["init-es"][..]] {
        let line = world.fail(&[command, &["--elasticsearch-url", &url]].concat());
        assert!(line.contains("is neither Elasticsearch nor OpenSearch"), "{line}");
    }
}

#[test]
fn it_says_what_to_run_before_there_is_an_index() {
    let world = World::bare("start_too_early", "");
    let line = world.fail(&["start", "--until-idle"]);
    assert!(line.contains("run `etl migrate`"), "{line}");
    world.succeed(&["migrate"]);
    let line = world.fail(&["start", "--until-idle"]);
    assert!(line.contains("run `etl init-es --kinds movies`"), "{line}");
}

#[test]
fn a_page_takes_a_fixed_number_of_statements_whatever_is_in_it() {
    let mut world = World::new("start_statements");
    world.sql(
        "INSERT INTO content.film_work (id, title)
               SELECT gen_random_uuid(), 'Film ' || n FROM generate_series(1, 500) AS n",
    );
    world.sync();
    let (without, one) = statements_of_a_full_load(&mut world);
    world.sql("INSERT INTO content.person (id, full_name)
                   SELECT gen_random_uuid(), 'Person ' || n FROM generate_series(1, 20) AS n;
               INSERT INTO content.genre (id, name)
                   SELECT gen_random_uuid(), 'Genre ' || n FROM generate_series(1, 5) AS n;
               INSERT INTO content.person_film_work (id, film_work_id, person_id, role)
                   SELECT gen_random_uuid(), f.id, p.id, 'actor' FROM content.film_work f, content.person p;
               INSERT INTO content.genre_film_work (id, film_work_id, genre_id)
                   SELECT gen_random_uuid(), f.id, g.id FROM content.film_work f, content.genre g");
    world.sync();
    let (with, other) = statements_of_a_full_load(&mut world);
    // Signs of life of the leader, and ten times a second, while documents are on their way, a look for work and
    // the pages that it finds empty.
    let looks = u64::try_from(40 * one.max(other).as_millis() / 1_000).unwrap();
    assert!(
        with.abs_diff(without) <= 10 + looks,
        "{without} statements without people and genres, {with} with them"
    );
    world.check_in_step();
}

/// Every statement is a transaction of its own, and these are counted. So are those of others
/// (autovacuum): the least of three is taken, and its time.
fn statements_of_a_full_load(world: &mut World) -> (i64, Duration) {
    let once = |_| {
        world.sql("UPDATE content.film_work SET indexed_at = NULL");
        let before = settled_transactions(world);
        let started = Instant::now();
        assert_eq!(world.sync(), 500);
        let time = started.elapsed();
        (settled_transactions(world) - before, time)
    };
    (0..3).map(once).min_by_key(|(statements, _)| *statements).expect("three numbers")
}

/// Sessions report what they did when they end, or after a second.
fn settled_transactions(world: &mut World) -> i64 {
    let mut before = transactions(world);
    loop {
        thread::sleep(Duration::from_millis(1_200));
        let now = transactions(world);
        if now - before <= 2 {
            return now;
        }
        before = now;
    }
}

fn transactions(world: &mut World) -> i64 {
    let sql = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
    world.client.query_one(sql, &[]).unwrap().get(0)
}

#[test]
fn a_refused_connection_does_not_show_the_password() {
    let world = World::new("start_password");
    let mut command = world.etl(&["init-es"]);
    let port = closed_port();
    command.env("ELASTICSEARCH_URL", format!("http://elastic:hunter2@127.0.0.1:{port}"));
    let outcome = run(command);
    assert_eq!(outcome.code, Some(1), "{outcome}");
    assert!(!outcome.to_string().contains("hunter2"), "{outcome}");
}

#[test]
fn a_lost_index_is_made_again_by_itself_only_if_that_is_asked_for() {
    let mut world = World::new("start_lost");
    world.sql(FILMS);
    let own = std::env::temp_dir().join(format!("etl-{}-lost.json", std::process::id()));
    let mapping = json!({ "mappings": { "_meta": { "mine": 7 }, "properties": { "id": { "type": "keyword" } } } });
    std::fs::write(&own, mapping.to_string()).unwrap();
    world.succeed(&["init-es", "--mapping", own.to_str().unwrap()]);
    world.sync();

    let lose: [fn(&World, &str); 3] = [
        |world, name| drop(world.engine.succeed("DELETE", &format!("/{name}"), None)),
        |world, name| {
            world.engine.succeed("DELETE", &format!("/{name}"), None);
            let aliases = json!({ "aliases": { world.engine.alias(): {} } });
            world.engine.succeed("PUT", &format!("/{name}"), Some(&aliases));
        },
        |world, name| {
            let remove = json!({ "remove": { "index": name, "alias": world.engine.alias() } });
            world.engine.succeed("POST", "/_aliases", Some(&json!({ "actions": [remove] })));
        },
    ];
    for lose in lose {
        let name = searched(&world);
        lose(&world, &name);
        let line = world.fail(&["start", "--until-idle"]);
        assert!(line.contains("`etl start --rebuild-lost-index`"), "{line}");
        let outcome = world.succeed(&["start", "--until-idle", "--rebuild-lost-index"]);
        assert!(outcome.stderr.contains("3000 documents were sent"), "{outcome}");
        world.check_in_step();
        let index = &world.engine.succeed("GET", &format!("/{}", world.engine.alias()), None);
        let index = index.as_object().unwrap().values().next().unwrap();
        assert_eq!(index["mappings"]["_meta"]["mine"], 7, "the mapping is the one it had");
    }

    // A run that was killed in the middle leaves no index; also that is put right.
    let before = searched(&world);
    world.sql("UPDATE etl.state SET index_name = NULL");
    world.succeed(&["start", "--until-idle", "--rebuild-lost-index"]);
    world.check_in_step();
    assert!(!world.engine.indices().contains(&before), "the one before is removed");
}

/// The name of the index that people search.
fn searched(world: &World) -> String {
    let answer = world.engine.succeed("GET", &format!("/_alias/{}", world.engine.alias()), None);
    answer.as_object().unwrap().keys().next().unwrap().clone()
}

#[test]
fn an_index_that_is_lost_while_running_is_made_again() {
    let mut world = World::new("start_lost_running");
    world.sql(FILMS);
    let running = world.spawn(&["start", "--rebuild-lost-index"]);
    world.wait_in_step();
    let name = searched(&world);
    world.engine.succeed("DELETE", &format!("/{name}"), None);
    let alias = format!("/_alias/{}", world.engine.alias());
    wait_until("another index is there", || world.engine.request("GET", &alias, None).0 == 200);
    world.wait_in_step();
    assert_ne!(searched(&world), name);
    let outcome = running.end();
    assert!(!outcome.stderr.contains("ERROR"), "nobody is asked to do anything\n{outcome}");
}

#[test]
fn an_alias_that_stands_for_another_index_too_is_noticed() {
    let mut world = World::new("start_two_indices");
    world.sql(FILMS);
    world.sync();
    let other = format!("{}other", world.engine.prefix);
    let definition = json!({ "aliases": { world.engine.alias(): {} } });
    world.engine.succeed("PUT", &format!("/{other}"), Some(&definition));
    let line = world.fail(&["start", "--until-idle"]);
    assert!(line.contains(&format!("stands for the index {other}, too")), "{line}");
    world.succeed(&["start", "--until-idle", "--rebuild-lost-index"]);
    world.check_in_step();
}
