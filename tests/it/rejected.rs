//! Documents that the engine refuses as they are: recorded, listed, tried again, and in nobody's way.

use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::support::proxy::Proxy;
use crate::support::world::World;

const FILMS: &str = "
    INSERT INTO content.film_work (id, title)
        SELECT ('00000000-0000-4000-9000-' || lpad(n::text, 12, '0'))::uuid, 'Film ' || n FROM generate_series(1, 6) AS n;";

const FILM_1: &str = "00000000-0000-4000-9000-000000000001";

#[test]
fn a_rejected_document_blocks_no_other_and_follows_when_it_is_mended() {
    let mut world = World::new("rejected_other");
    world.sql(FILMS);
    world.sql(&format!(
        "UPDATE content.film_work SET title = repeat('too long ', 5000) WHERE id = '{FILM_1}'"
    ));
    let outcome = world.succeed(&["start", "--until-idle", "--batch-size", "2"]);
    assert!(outcome.stderr.contains(&format!("film_work {FILM_1}")), "{outcome}");
    assert_eq!(world.engine.documents().len(), 5);
    let row = world
        .client
        .query_one("SELECT row_id::text, attempts, error_type FROM etl.rejected", &[])
        .unwrap();
    assert_eq!(row.get::<_, String>(0), FILM_1);
    assert_eq!(row.get::<_, i32>(1), 1);
    assert_eq!(world.sync(), 0, "it is not tried again and again");

    world.sql("UPDATE etl.rejected SET retry_at = now()");
    world.sync();
    let row =
        world.client.query_one("SELECT attempts, retry_at > now() FROM etl.rejected", &[]).unwrap();
    assert_eq!(row.get::<_, i32>(0), 2, "it is tried again when its pause is over");
    assert!(row.get::<_, bool>(1));

    world.sql(&format!("UPDATE content.film_work SET title = 'short' WHERE id = '{FILM_1}'"));
    world.sync();
    world.check_in_step();
    assert!(world.client.query("SELECT FROM etl.rejected", &[]).unwrap().is_empty());
}

#[test]
fn a_rejected_document_of_a_film_that_a_writer_holds_is_not_sent_again_and_again() {
    let mut world = World::new("rejected_locked");
    world.sql(FILMS);
    world.sync();
    let proxy = Proxy::new(&world.engine.url);
    world.sql(&format!("UPDATE content.film_work SET rating = 1e300 WHERE id = '{FILM_1}'"));
    let mut writer = world.database.client();
    let mut transaction = writer.transaction().unwrap();
    let lock = format!("SELECT FROM content.film_work WHERE id = '{FILM_1}' FOR UPDATE");
    transaction.batch_execute(&lock).unwrap();
    let running = world.spawn(&["start", "--elasticsearch-url", &proxy.url]);
    thread::sleep(Duration::from_secs(3));
    assert_eq!(proxy.bulk_requests(), 1);
    transaction.rollback().unwrap();
    world.wait_for_row("SELECT FROM etl.rejected");
    running.signal("-TERM");
    let outcome = running.wait();
    assert_eq!(outcome.stderr.matches("the engine rejects 1 documents").count(), 1, "{outcome}");
}

#[test]
fn the_rejected_documents_are_listed_with_what_a_person_needs_to_know() {
    let mut world = World::new("rejected_list");
    let outcome = world.succeed(&["rejected"]);
    assert_eq!(outcome.stdout, "no document is rejected\n");

    world.sql(FILMS);
    world.sql(&format!("UPDATE content.film_work SET rating = 1e300 WHERE id = '{FILM_1}'"));
    world.sync();
    let outcome = world.succeed(&["rejected"]);
    for part in [
        &format!("film_work {FILM_1} \"Film 1\"\n"),
        "refused 1 times since 20",
        "1 documents are rejected",
        "imdb_rating",
    ] {
        assert!(outcome.stdout.contains(part), "no `{part}`\n{outcome}");
    }
    let view = "SELECT id::text, title, version, error_type, reason, attempts, first_at <= last_at AND last_at < retry_at
        FROM etl.rejected_documents";
    let row = world.client.query_one(view, &[]).unwrap();
    assert_eq!(row.get::<_, String>(0), FILM_1);
    let of_row = "SELECT (extract(epoch FROM touched_at) * 1000000)::bigint FROM content.film_work WHERE id::text = $1";
    let version: i64 = world.client.query_one(of_row, &[&FILM_1]).unwrap().get(0);
    assert_eq!(row.get::<_, i64>(2), version);
    assert!(row.get::<_, bool>(6));

    let outcome = world.succeed(&["rejected", "--retry"]);
    assert_eq!(outcome.stdout, "1 documents are tried again\n");
    world.sync();
    assert!(world.succeed(&["rejected"]).stdout.contains("refused 2 times"));

    world.sql(&format!("DELETE FROM content.film_work WHERE id = '{FILM_1}'"));
    let outcome = world.succeed(&["rejected"]);
    assert_eq!(outcome.stdout, "no document is rejected\n");
}

#[test]
fn an_explanation_that_quotes_a_whole_text_is_cut() {
    let mut world = World::new("rejected_long");
    world.sql(FILMS);
    world.sql(&format!(
        "UPDATE content.film_work SET title = repeat('слишком ', 9000) WHERE id = '{FILM_1}'"
    ));
    world.sync();
    let row = world.client.query_one("SELECT length(reason) FROM etl.rejected", &[]).unwrap();
    assert!(row.get::<_, i32>(0) <= 1_001, "{row:?}");
}

/// A definition that no film fits.
fn misfit(name: &str) -> String {
    let path = std::env::temp_dir().join(format!("etl-{}-{name}.json", std::process::id()));
    let properties = json!({ "id": { "type": "keyword" }, "title": { "type": "integer" } });
    let definition = json!({ "mappings": { "properties": properties } });
    std::fs::write(&path, definition.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_mapping_that_fits_no_film_is_said_once_and_nothing_is_recorded() {
    for (name, films) in [("one_batch", 60), ("many_batches", 3_000)] {
        let mut world = World::bare(&format!("misfit_{name}"), "");
        world.succeed(&["init-es", "--mapping", &misfit(name)]);
        world.sql(&format!(
            "INSERT INTO content.film_work (id, title)
             SELECT gen_random_uuid(), 'Film ' || n FROM generate_series(1, {films}) AS n"
        ));
        let line = world.fail(&["start", "--until-idle"]);
        assert!(
            line.contains("the mapping does not fit") && line.contains("`etl init-es`"),
            "{line}"
        );
        assert!(world.client.query("SELECT FROM etl.rejected", &[]).unwrap().is_empty());

        world.succeed(&["init-es"]);
        assert_eq!(world.sync(), films);
        world.check_in_step();
    }
}

#[test]
fn many_bad_documents_are_not_taken_for_a_mapping_that_does_not_fit() {
    let mut world = World::new("rejected_many");
    world.sql(
        "INSERT INTO content.film_work (id, title)
         SELECT gen_random_uuid(), 'Film ' || n FROM generate_series(1, 300) AS n",
    );
    // The first batches have nothing else; what fits comes after them.
    world.sql("UPDATE content.film_work SET description = 'good' WHERE id IN (SELECT id FROM content.film_work LIMIT 100)");
    world.sql("UPDATE content.film_work SET rating = 1e300 WHERE description IS NULL");
    world.sql("UPDATE content.film_work SET title = title WHERE description = 'good'");
    world.succeed(&["start", "--until-idle", "--batch-size", "50"]);
    assert_eq!(world.engine.documents().len(), 100);
    assert_eq!(world.client.query("SELECT FROM etl.rejected", &[]).unwrap().len(), 200);

    // And when there is nothing else at all.
    world.sql("UPDATE content.film_work SET rating = 2e300 WHERE description IS NULL");
    world.succeed(&["start", "--until-idle"]);
    let attempts = "SELECT FROM etl.rejected WHERE attempts = 2";
    assert_eq!(world.client.query(attempts, &[]).unwrap().len(), 200);
}
