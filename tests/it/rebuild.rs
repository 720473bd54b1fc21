//! A new index beside the live one: filled, followed, compared, switched; killed at each step, cancelled,
//! refused.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::proxy::{Fault, Proxy};
use crate::support::wait::wait_until;
use crate::support::world::World;

/// 60 films, of which every third has the one person and every second the one genre.
const ROWS: &str = "
    INSERT INTO content.person (id, full_name) VALUES (md5('person')::uuid, 'Ann');
    INSERT INTO content.genre (id, name) VALUES (md5('genre')::uuid, 'Drama');
    INSERT INTO content.film_work (id, title)
        SELECT md5('film' || n)::uuid, 'Film ' || n FROM generate_series(1, 60) AS n;
    INSERT INTO content.person_film_work (id, person_id, film_work_id, role)
        SELECT md5('credit' || n)::uuid, md5('person')::uuid, md5('film' || n)::uuid, 'actor'
        FROM generate_series(1, 60, 3) AS n;
    INSERT INTO content.genre_film_work (id, genre_id, film_work_id)
        SELECT md5('link' || n)::uuid, md5('genre')::uuid, md5('film' || n)::uuid
        FROM generate_series(1, 60, 2) AS n;";

/// A world whose indices are filled.
fn filled(name: &str) -> World {
    let mut world = World::with_all_kinds(name, "");
    world.sql(ROWS);
    world.sync();
    world.check_in_step();
    world
}

/// The one index behind the alias of the films, and its own answer to `GET /index`.
fn live(world: &World) -> (String, Value) {
    let answer = world.engine.succeed("GET", &format!("/{}", world.engine.alias()), None);
    let indices: Vec<(String, Value)> = answer.as_object().unwrap().clone().into_iter().collect();
    assert_eq!(indices.len(), 1, "{answer}");
    indices.into_iter().next().unwrap()
}

fn rebuilds(world: &mut World) -> i64 {
    world.client.query_one("SELECT count(*) FROM etl.rebuild", &[]).unwrap().get(0)
}

#[test]
fn without_a_leader_the_command_does_it_by_itself() {
    let mut world = filled("rebuild_alone");
    let (before, _) = live(&world);
    let outcome = world.succeed(&["rebuild"]);
    assert_eq!(outcome.stdout.matches("has taken the place of").count(), 3, "{outcome}");
    let (after, definition) = live(&world);
    assert_ne!(before, after);
    assert!(!world.engine.indices().contains(&before), "the former index is still there");
    assert_eq!(world.engine.indices().len(), 3);
    assert_eq!(definition["settings"]["index"]["refresh_interval"], "1s");
    assert_eq!(definition["settings"]["index"]["number_of_replicas"], "1");
    world.check_in_step();
    assert_eq!((world.sync(), rebuilds(&mut world)), (0, 0));
    world.sql("UPDATE content.person SET full_name = 'Anna'; DELETE FROM content.film_work WHERE title = 'Film 7'");
    assert_eq!(world.sync(), 21);
    world.check_in_step();
}

#[test]
fn beside_a_leader_searches_always_see_everything_and_no_change_is_lost() {
    let mut world = filled("rebuild_beside");
    let proxy = Proxy::new(&world.engine.url);
    let start = ["start", "--batch-size", "5", "--elasticsearch-url", &proxy.url];
    let leader = world.spawn(&start);
    wait_until("somebody leads", || leads(&mut world));
    let ended = AtomicBool::new(false);
    let (engine, database) = (&world.engine, &world.database);
    let outcome = thread::scope(|scope| {
        let searcher = scope.spawn(|| search_until(engine, &ended));
        scope.spawn(|| write_until(&mut database.client(), &ended));
        // Slow enough for many changes to come in between.
        proxy.plan(std::iter::repeat_n(Fault::SlowAnswer(Duration::from_millis(40)), 200));
        let outcome = world.succeed(&["rebuild", "--kind", "movies"]);
        ended.store(true, Ordering::SeqCst);
        assert!(searcher.join().unwrap() > 5, "hardly searched at all");
        outcome
    });
    assert!(outcome.stderr.contains("standing by"), "it led itself\n{outcome}");
    world.wait_in_step();
    let outcome = leader.end();
    assert!(outcome.stderr.contains("compared"), "{outcome}");
    assert!(!outcome.stderr.contains("WARN"), "{outcome}");
    assert_eq!(world.sync(), 0);
}

fn leads(world: &mut World) -> bool {
    let sql = "SELECT FROM pg_stat_activity WHERE application_name = 'etl' AND datname = current_database()";
    !world.client.query(sql, &[]).unwrap().is_empty()
}

/// Films 1 to 40 are there all along. Returns how often that was seen.
fn search_until(engine: &crate::support::engine::Engine, ended: &AtomicBool) -> usize {
    let path = format!("/{}/_count", engine.alias());
    let lasting = json!({ "query": { "terms": { "genres": ["Drama", "Comedy"] } } });
    let mut searches = 0;
    while !ended.load(Ordering::SeqCst) {
        let answer = engine.succeed("POST", &path, Some(&lasting));
        let found = answer["count"].as_u64().unwrap();
        assert!(found >= 20, "a search has found {found} of 20 films that were there all along");
        searches += 1;
        thread::sleep(Duration::from_millis(5));
    }
    searches
}

/// Edits, links, renames, deletes and inserts again, but for the films 1 to 40.
fn write_until(client: &mut postgres::Client, ended: &AtomicBool) {
    let mut n = 0;
    while !ended.load(Ordering::SeqCst) {
        n += 1;
        let film = format!("md5('film' || {})::uuid", 41 + n % 20);
        client
            .batch_execute(&format!(
                "UPDATE content.film_work SET title = 'Edit {n}' WHERE id = md5('film' || {})::uuid;
                 UPDATE content.person SET full_name = 'Ann {n}';
                 DELETE FROM content.film_work WHERE id = {film};",
                1 + n % 60
            ))
            .unwrap();
        if n % 3 > 0 {
            client
                .batch_execute(&format!(
                    "INSERT INTO content.film_work (id, title) VALUES ({film}, 'Back {n}');
                     INSERT INTO content.person_film_work (id, person_id, film_work_id, role)
                     VALUES (gen_random_uuid(), md5('person')::uuid, {film}, 'writer')"
                ))
                .unwrap();
        }
        if n % 7 == 0 {
            let name = ["Drama", "Comedy"][n / 7 % 2];
            client.batch_execute(&format!("UPDATE content.genre SET name = '{name}'")).unwrap();
        }
        thread::sleep(Duration::from_millis(3));
    }
}

/// Each statement that brings a rebuild on, as a trigger sees it: before it, what comes before it was done.
const STEPS: [&str; 5] = [
    "INSERT ON etl.rebuild FOR EACH ROW",
    "UPDATE ON etl.rebuild FOR EACH ROW WHEN (OLD.phase = 'requested' AND NEW.phase = 'filling')",
    "UPDATE ON etl.rebuild FOR EACH ROW WHEN (OLD.filled_to IS NOT NULL AND NEW.filled_to <> OLD.filled_to)",
    "UPDATE ON etl.rebuild FOR EACH ROW WHEN (NEW.phase = 'switching')",
    "DELETE ON etl.rebuild FOR EACH ROW",
];

/// The former index is deleted when no search can be at work in it any more.
#[track_caller]
fn wait_until_cleared(world: &World) {
    let running = world.spawn(&["start"]);
    wait_until("three indices are left", || world.engine.indices().len() == 3);
    // It may not even have begun, so it is not asked to end well.
    drop(running);
}

#[test]
fn killed_before_each_step_it_is_resumed_and_nothing_is_lost() {
    let mut world = filled("rebuild_killed");
    world.sql(
        "CREATE FUNCTION public.wait() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN PERFORM pg_sleep(20); RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END; END $$",
    );
    for (n, step) in STEPS.iter().enumerate() {
        let (before, _) = live(&world);
        world.sql(&format!("CREATE TRIGGER wait BEFORE {step} EXECUTE FUNCTION public.wait()"));
        let running = world.spawn(&["rebuild", "--kind", "movies", "--batch-size", "7"]);
        world.wait_for_row(
            "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()",
        );
        running.signal("-KILL");
        let _ = running.wait();
        world.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE wait_event = 'PgSleep' AND datname = current_database()",
        );
        world.sql("DROP TRIGGER wait ON etl.rebuild");
        world.sql(&format!(
            "UPDATE content.film_work SET title = 'Edit {n}' WHERE title = 'Film {n}';
             DELETE FROM content.film_work WHERE id = md5('film' || {})::uuid",
            20 + n
        ));
        // Whoever comes next goes on with it; of the first one nobody knows anything.
        if n % 2 == 0 {
            world.succeed(&["rebuild", "--kind", "movies", "--batch-size", "7"]);
        } else {
            world.sync();
        }
        world.sync();
        world.check_in_step();
        assert_eq!(rebuilds(&mut world), 0, "{step}");
        assert_ne!(live(&world).0, before, "{step}");
        wait_until_cleared(&world);
    }
}

/// Has the new index take no writes for a while.
fn block_new_index(world: &mut World, is_blocked: bool) {
    let name: String =
        world.client.query_one("SELECT index_name FROM etl.rebuild", &[]).unwrap().get(0);
    let block = json!({ "index.blocks.write": is_blocked });
    world.engine.succeed("PUT", &format!("/{name}/_settings"), Some(&block));
}

#[test]
fn a_stamp_and_a_forgotten_tombstone_need_the_acknowledgement_of_both() {
    let mut world = filled("rebuild_both");
    let proxy = Proxy::new(&world.engine.url);
    let start = ["start", "--batch-size", "3", "--elasticsearch-url", &proxy.url];
    let leader = world.spawn(&start);
    wait_until("somebody leads", || leads(&mut world));
    // The first page hangs between the engine and the program until the index is blocked.
    proxy.plan([Fault::Pass, Fault::HoldAnswer]);
    let command = world.spawn(&["rebuild", "--kind", "movies"]);
    world.wait_for_row("SELECT FROM etl.rebuild WHERE filled_to IS NOT NULL");
    block_new_index(&mut world, true);
    proxy.release();
    world.sql(
        "UPDATE content.film_work SET title = 'Both' WHERE title = 'Film 1';
         DELETE FROM content.film_work WHERE title = 'Film 2'",
    );
    // The live index has the edit …
    wait_until("the live index has the edit", || {
        world.engine.documents().values().any(|document| document.source["title"] == "Both")
    });
    thread::sleep(Duration::from_millis(300));
    // … and neither is done.
    let undone = "SELECT FROM content.film_work WHERE title = 'Both' AND indexed_at IS NULL";
    assert_eq!(world.client.query(undone, &[]).unwrap().len(), 1);
    let undone = "SELECT FROM etl.outbox WHERE op = 'tombstone' AND kind = 'film_work'";
    assert_eq!(world.client.query(undone, &[]).unwrap().len(), 1);
    block_new_index(&mut world, false);
    assert_eq!(command.wait().code, Some(0));
    world.wait_in_step();
    drop(leader);
    world.sync();
    world.check_in_step();
}

#[test]
fn a_mapping_that_refuses_a_document_stops_the_rebuild_and_nothing_else() {
    let mut world = filled("rebuild_refused");
    let (before, _) = live(&world);
    world.sql("UPDATE content.film_work SET title = 'no number' WHERE title = 'Film 33'");
    world.sync();
    let mut definition: Value =
        serde_json::from_str(include_str!("../../src/elasticsearch/movies.json")).unwrap();
    definition["mappings"]["properties"]["description"] = json!({ "type": "integer" });
    let path = std::env::temp_dir().join(format!("etl_rebuild_{}.json", std::process::id()));
    std::fs::write(&path, definition.to_string()).unwrap();
    world.sql("UPDATE content.film_work SET description = 'no number' WHERE title = 'Film 40'");
    world.sync();
    let args = ["rebuild", "--kind", "movies", "--mapping", path.to_str().unwrap()];
    let line = world.fail(&args);
    let refused = "was stopped, the live index is as it was: it refuses the document of film_work";
    assert!(line.contains(refused) && line.contains("[description]"), "{line}");
    assert_eq!((live(&world).0, world.engine.indices().len()), (before, 3));
    world.check_in_step();

    // A document that comes while it is filled is refused by the new index alone, too.
    world.sql("UPDATE content.film_work SET description = NULL WHERE title = 'Film 40'");
    world.sync();
    let proxy = Proxy::new(&world.engine.url);
    proxy.plan([Fault::HoldAnswer]);
    let slowly = [&args[..], &["--batch-size", "4", "--elasticsearch-url", &proxy.url]].concat();
    let running = world.spawn(&slowly);
    wait_until("the first page is under way", || proxy.bulk_requests() == 1);
    world.sql("UPDATE content.film_work SET description = 'no number' WHERE title = 'Film 41'");
    proxy.release();
    let outcome = running.wait();
    assert_eq!(outcome.code, Some(1), "{outcome}");
    assert!(outcome.stderr.contains("it refuses a document"), "{outcome}");
    world.sync();
    world.check_in_step();

    // With a mapping that the engine refuses as a whole there is nothing to fill.
    definition["mappings"]["properties"]["description"] = json!({ "type": "nonsense" });
    std::fs::write(&path, definition.to_string()).unwrap();
    let line = world.fail(&args);
    assert!(line.contains("the engine refuses the mapping"), "{line}");
    std::fs::remove_file(&path).unwrap();
    world.check_in_step();
    world.succeed(&["rebuild", "--kind", "movies"]);
    world.check_in_step();
}

#[test]
fn an_index_that_keeps_no_sources_is_compared_by_number() {
    let mut world = filled("rebuild_sources");
    let mut definition: Value =
        serde_json::from_str(include_str!("../../src/elasticsearch/genres.json")).unwrap();
    definition["mappings"]["_source"] = json!({ "enabled": false });
    let path = std::env::temp_dir().join(format!("etl_sources_{}.json", std::process::id()));
    std::fs::write(&path, definition.to_string()).unwrap();
    let mapping = format!("genres={}", path.to_str().unwrap());
    let outcome = world.succeed(&["rebuild", "--kind", "genres", "--mapping", &mapping]);
    std::fs::remove_file(&path).unwrap();
    assert!(outcome.stderr.contains("compared 1 documents of genres by number alone"), "{outcome}");
    assert_eq!(rebuilds(&mut world), 0);
    let path = format!("/{}genres/_count", world.engine.prefix);
    assert_eq!(world.engine.succeed("GET", &path, None)["count"], 1);
}

#[test]
fn what_both_indices_refuse_does_not_stop_it() {
    let mut world = filled("rebuild_rejected");
    world.sql("UPDATE content.film_work SET title = repeat('x', 40000) WHERE title = 'Film 5'");
    world.sync();
    world.succeed(&["rebuild", "--kind", "movies"]);
    assert_eq!(world.engine.documents().len(), 59);
    world.sync();
    let rejected = world.succeed(&["rejected"]).stdout;
    assert!(rejected.contains("1 documents are rejected"), "{rejected}");
    world.sql("UPDATE content.film_work SET title = 'short' WHERE length(title) > 1000");
    world.sync();
    world.check_in_step();
}

#[test]
fn aliases_and_what_an_operator_has_changed_are_carried_over() {
    let world = filled("rebuild_carried");
    let (before, _) = live(&world);
    let drama = json!({ "term": { "genres": "Drama" } });
    let alias = format!("{}drama", world.engine.prefix);
    let add =
        json!({ "actions": [{ "add": { "index": before, "alias": alias, "filter": drama } }] });
    world.engine.succeed("POST", "/_aliases", Some(&add));
    let settings = json!({ "index": { "number_of_replicas": 2, "refresh_interval": "7s" } });
    world.engine.succeed("PUT", &format!("/{before}/_settings"), Some(&settings));
    world.succeed(&["rebuild", "--keep-old"]);
    let (after, definition) = live(&world);
    assert_ne!(before, after);
    assert_eq!(definition["settings"]["index"]["number_of_replicas"], "2");
    assert_eq!(definition["settings"]["index"]["refresh_interval"], "7s");
    assert_eq!(definition["aliases"][&alias]["filter"], drama);
    let kept = world.engine.succeed("GET", &format!("/{before}"), None);
    assert_eq!(kept[&before]["aliases"], json!({}));
    let found = world.engine.succeed("GET", &format!("/{alias}/_count"), None);
    assert_eq!(found["count"], 30);
}

#[test]
fn a_rebuild_can_be_cancelled_and_asked_for_again() {
    let mut world = filled("rebuild_cancel");
    let line = world.succeed(&["rebuild", "--cancel"]).stdout;
    assert_eq!(line.matches("no rebuild of").count(), 3, "{line}");
    let proxy = Proxy::new(&world.engine.url);
    proxy.plan([Fault::Pass, Fault::HoldAnswer]);
    let start =
        ["rebuild", "--kind", "movies", "--batch-size", "3", "--elasticsearch-url", &proxy.url];
    let running = world.spawn(&start);
    world.wait_for_row("SELECT FROM etl.rebuild WHERE filled_to IS NOT NULL");
    let (before, _) = live(&world);
    world.succeed(&["rebuild", "--cancel", "--kind", "movies"]);
    proxy.release();
    let outcome = running.wait();
    assert_eq!(outcome.code, Some(1), "{outcome}");
    assert!(outcome.stderr.contains("etl: the rebuild of movies was cancelled"), "{outcome}");
    assert_eq!((rebuilds(&mut world), live(&world).0), (0, before));
    assert_eq!(world.engine.indices().len(), 3);
    world.sql("UPDATE content.film_work SET title = 'later' WHERE title = 'Film 9'");
    world.sync();
    world.check_in_step();
    world.succeed(&["rebuild", "--kind", "movies"]);
    world.check_in_step();
}

#[test]
fn init_es_ends_a_rebuild() {
    let mut world = filled("rebuild_init");
    let proxy = Proxy::new(&world.engine.url);
    proxy.plan([Fault::Pass, Fault::HoldAnswer]);
    let start =
        ["rebuild", "--kind", "movies", "--batch-size", "3", "--elasticsearch-url", &proxy.url];
    let running = world.spawn(&start);
    world.wait_for_row("SELECT FROM etl.rebuild WHERE filled_to IS NOT NULL");
    world.succeed(&["init-es"]);
    proxy.release();
    let outcome = running.wait();
    assert_eq!(outcome.code, Some(1), "{outcome}");
    assert!(outcome.stderr.contains("was cancelled"), "{outcome}");
    assert_eq!((rebuilds(&mut world), world.engine.indices().len()), (0, 3));
    world.sync();
    world.check_in_step();
}

#[test]
fn a_kind_without_an_index_is_not_rebuilt() {
    let world = World::new("rebuild_unbound");
    assert_eq!(
        world.fail(&["rebuild", "--kind", "movies,genres"]),
        "etl: there is no index of genres yet: run `etl init-es --kinds genres`"
    );
}
