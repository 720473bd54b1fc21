//! `etl init-es`: the index is made anew, whatever stands in its place, wherever it is killed, and
//! whoever works meanwhile.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::world::World;

/// Some films, all with a genre.
const FILMS: &str = "
    INSERT INTO content.genre (id, name) VALUES ('00000000-0000-4000-8000-000000000001', 'Drama');
    INSERT INTO content.film_work (id, title) SELECT gen_random_uuid(), 'Film ' || n FROM generate_series(1, 5000) AS n;
    INSERT INTO content.genre_film_work (id, genre_id, film_work_id)
        SELECT gen_random_uuid(), '00000000-0000-4000-8000-000000000001', id FROM content.film_work;";

#[test]
fn our_former_index_is_deleted_and_everything_is_loaded_again() {
    let mut world = World::new("init_former");
    world.sql(FILMS);
    world.sync();
    let former = world.engine.indices();
    let outcome = world.succeed(&["init-es"]);
    assert!(
        outcome.stdout.contains(&format!("removed our former index {}", former[0])),
        "{outcome}"
    );
    let indices = world.engine.indices();
    assert_eq!(indices.len(), 1);
    assert_ne!(indices, former);
    assert_eq!(world.sync(), 5_000);
    world.check_in_step();
}

#[test]
fn the_index_has_the_mapping_analyzer_and_name_that_are_promised() {
    let world = World::new("init_mapping");
    // Until it is filled, it is without refresh and replicas.
    assert_eq!(world.sync(), 0);
    let name = world.engine.indices().remove(0);
    let digits =
        name.strip_prefix(&format!("{}_", world.engine.alias())).expect("movies_<UTC time>");
    assert!(digits.len() == 17 && digits.bytes().all(|byte| byte.is_ascii_digit()), "{name}");

    let index = &world.engine.succeed("GET", &format!("/{}", world.engine.alias()), None)[&name];
    let mappings = &index["mappings"];
    assert_eq!(mappings["dynamic"], "strict");
    assert_eq!(mappings["properties"]["title"]["fields"]["raw"]["type"], "keyword");
    for role in ["directors", "actors", "writers"] {
        assert_eq!(mappings["properties"][role]["type"], "nested");
        assert_eq!(mappings["properties"][role]["dynamic"], "strict");
        assert_eq!(mappings["properties"][format!("{role}_names")]["analyzer"], "ru_en");
    }
    assert_eq!(index["settings"]["index"]["refresh_interval"], "1s");
    assert_eq!(index["settings"]["index"]["gc_deletes"], "1h");
    let analyze = json!({ "analyzer": "ru_en", "text": "the running engines и бегущие машины" });
    let answer = world.engine.succeed("POST", &format!("/{name}/_analyze"), Some(&analyze));
    let tokens: Vec<&str> =
        answer["tokens"].as_array().unwrap().iter().map(|t| t["token"].as_str().unwrap()).collect();
    assert_eq!(tokens, ["run", "engin", "бегущ", "машин"]);
}

#[test]
fn an_alias_of_somebody_else_is_taken_off_and_his_index_stays() {
    let world = World::bare("init_alias", "");
    let theirs = format!("{}theirs", world.engine.prefix);
    let alias = world.engine.alias();
    let definition = json!({ "aliases": { &alias: {}, "other-name": {} } });
    world.engine.succeed("PUT", &format!("/{theirs}"), Some(&definition));
    let outcome = world.succeed(&["init-es"]);
    assert!(
        outcome
            .stdout
            .contains(&format!("took the alias {alias} off the index {theirs}, which stays")),
        "{outcome}"
    );
    let index = world.engine.succeed("GET", &format!("/{theirs}"), None);
    assert_eq!(index[&theirs]["aliases"], json!({ "other-name": {} }));
}

#[test]
fn an_index_of_another_tool_is_deleted_only_if_that_is_asked_for() {
    let world = World::bare("init_concrete", "");
    let name = world.engine.alias();
    world.engine.succeed("PUT", &format!("/{name}"), None);
    let line = world.fail(&["init-es"]);
    assert!(line.contains(&name) && line.contains("--replace"), "{line}");
    assert_eq!(world.engine.indices(), std::slice::from_ref(&name));

    let outcome = world.succeed(&["init-es", "--replace"]);
    assert!(
        outcome.stdout.contains(&format!("removed the index {name}, which another tool had made")),
        "{outcome}"
    );
    assert_eq!(world.engine.indices().len(), 1);
    assert_ne!(world.engine.indices(), [name]);
}

#[test]
fn a_mapping_of_ones_own_is_used_and_one_that_is_wrong_is_refused() {
    let world = World::new("init_own_mapping");
    let before = world.engine.indices();
    let folder = std::env::temp_dir();
    let file = |name: &str, text: &str| {
        let path = folder.join(format!("etl-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };

    let with_title = |title: &str| {
        format!(
            r#"{{"mappings": {{"properties": {{"id": {{"type": "keyword"}}, "title": {{"type": "{title}"}}}}}}}}"#
        )
    };
    let wrong = file("wrong.json", &with_title("novel"));
    let line = world.fail(&["init-es", "--mapping", &wrong]);
    assert!(line.contains("the engine refuses the mapping") && line.contains("novel"), "{line}");
    let line = world.fail(&["init-es", "--mapping", &file("broken.json", "{")]);
    assert!(line.contains("is not JSON"), "{line}");
    let line = world.fail(&["init-es", "--mapping", &file("without.json", "{\"mappings\": {}}")]);
    assert!(line.contains("a property `id` of the type `keyword`"), "{line}");
    assert_eq!(world.engine.indices(), before, "the index that was there still is");
    assert_eq!(world.sync(), 0);

    let own = file("own.json", &with_title("keyword"));
    world.succeed(&["init-es", "--mapping", &own]);
    let name = world.engine.indices().remove(0);
    let index = &world.engine.succeed("GET", &format!("/{name}"), None)[&name];
    assert_eq!(index["mappings"]["properties"]["title"]["type"], "keyword");
    assert_eq!(index["settings"]["index"]["gc_deletes"], "1h");
}

#[test]
fn killed_anywhere_it_is_finished_by_another_run() {
    let mut world = World::new("init_killed");
    world.sql(FILMS);
    world.sync();
    let whole = {
        let started = Instant::now();
        world.succeed(&["init-es"]);
        started.elapsed()
    };
    world.sync();
    for part in 1..=8 {
        let running = world.spawn(&["init-es"]);
        thread::sleep(whole * part / 8);
        running.signal("-KILL");
        let _ = running.wait();
    }
    world.succeed(&["init-es"]);
    assert_eq!(world.engine.indices().len(), 1, "what a killed run has left is removed");
    assert_eq!(world.sync(), 5_000);
    world.check_in_step();
}

#[test]
fn start_says_that_init_es_was_not_finished() {
    let mut world = World::new("init_unfinished");
    world.sql("UPDATE etl.state SET index_name = NULL");
    let line = world.fail(&["start", "--until-idle"]);
    assert!(line.contains("was not finished: run `etl init-es "), "{line}");
}

#[test]
fn a_film_that_a_writer_holds_is_waited_for() {
    let mut world = World::new("init_locked");
    world.sql(FILMS);
    world.sync();
    let mut writer = world.database.client();
    let mut transaction = writer.transaction().unwrap();
    transaction
        .batch_execute("SELECT FROM content.film_work WHERE title = 'Film 7' FOR UPDATE")
        .unwrap();
    let running = world.spawn(&["init-es"]);
    thread::sleep(Duration::from_secs(3));
    transaction.rollback().unwrap();
    let outcome = running.wait();
    assert_eq!(outcome.code, Some(0), "{outcome}");
    assert!(
        outcome.stderr.contains("1 rows of film_work are locked by other sessions"),
        "{outcome}"
    );
    assert_eq!(world.sync(), 5_000);
    world.check_in_step();
}

#[test]
fn beside_a_working_leader_nothing_is_missed() {
    let mut world = World::new("init_beside");
    world.sql(FILMS);
    let leader = world.spawn(&["start", "--batch-size", "50"]);
    for round in 0..6 {
        world.sql(&format!(
            "UPDATE content.film_work SET title = title || '{round}';
             DELETE FROM content.film_work WHERE id IN (SELECT id FROM content.film_work ORDER BY id LIMIT 10);
             INSERT INTO content.film_work (id, title) VALUES (gen_random_uuid(), 'New {round}')"
        ));
        thread::sleep(Duration::from_millis(300 * round));
        world.succeed(&["init-es"]);
    }
    world.wait_in_step();
    leader.end();
    assert_eq!(world.sync(), 0);
}

#[test]
fn an_index_of_a_prefix_that_begins_with_our_alias_is_left_alone() {
    let world = World::new("init_prefix");
    let theirs = format!("{}_staging_", world.engine.alias());
    let mut command = world.etl(&["init-es"]);
    command.env("ETL_INDEX_PREFIX", &theirs);
    let outcome = crate::support::command::run(command);
    assert_eq!(outcome.code, Some(0), "{outcome}");
    let before = world.engine.indices();
    assert_eq!(before.len(), 2);
    world.succeed(&["init-es"]);
    let after = world.engine.indices();
    assert_eq!(after.len(), 2);
    assert_eq!(
        after.iter().filter(|name| before.contains(name)).count(),
        1,
        "{before:?} {after:?}"
    );
}
