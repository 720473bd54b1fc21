//! What is added, and that what is there stays as it is.

use super::{
    DJANGO, OUR_INDEXES, ROWS, TABLES, load_definition, load_rows, load_valid_indexes, migrate,
};
use crate::support::database::Database;
use crate::support::world::World;

#[test]
fn an_empty_database_gets_a_catalogue() {
    let mut world = World::new("empty_database");
    assert_eq!(world.sync(), 0);
    world.sql(
        "INSERT INTO content.film_work (id, title) VALUES (md5('film')::uuid, 'Solaris');
         INSERT INTO content.genre (id, name) VALUES (md5('genre')::uuid, 'Drama');
         INSERT INTO content.genre_film_work (id, film_work_id, genre_id)
         VALUES (md5('link')::uuid, md5('film')::uuid, md5('genre')::uuid)",
    );
    assert_eq!(world.sync(), 1);
    world.check_in_step();
}

#[test]
fn a_schema_content_without_our_tables_gets_them_too() {
    let database = Database::new("empty_schema");
    let mut client = database.client();
    client
        .batch_execute("CREATE SCHEMA content; CREATE TABLE content.poster (id integer)")
        .unwrap();
    database.migrate();
    for table in TABLES {
        client.execute(&format!("SELECT FROM content.{table}"), &[]).unwrap();
    }
}

#[test]
fn a_catalogue_that_an_application_made_is_left_as_it_is() {
    let mut world = World::bare("django", DJANGO);
    world.sql(ROWS);
    let (definition, rows) = (load_definition(&mut world.client), load_rows(&mut world.client));
    migrate(&world.database);

    let after = load_definition(&mut world.client);
    let removed: Vec<_> = definition.iter().filter(|line| !after.contains(line)).collect();
    assert!(removed.is_empty(), "{removed:#?}");
    let ours = ["touched_at", "indexed_at", "rejected_at", "fanned_out_at", "_etl_", "etl."];
    let is_ours = |line: &&String| {
        line.starts_with("schema etl ") || ours.iter().any(|word| line.contains(word))
    };
    let added: Vec<_> = after
        .iter()
        .filter(|line| !definition.contains(line))
        .filter(|line| !is_ours(line))
        .collect();
    assert!(added.is_empty(), "{added:#?}");
    assert_eq!(load_rows(&mut world.client), rows);

    world.succeed(&["init-es"]);
    assert_eq!(world.sync(), 10);
    world.check_in_step();
    assert_eq!(load_rows(&mut world.client), rows);
    world.sql("UPDATE content.person SET full_name = 'Renamed' WHERE full_name = 'Person 1'");
    assert_eq!(world.sync(), 10);
    world.check_in_step();
}

#[test]
fn each_table_is_watched_whatever_the_role_of_the_session() {
    let database = Database::new("watched");
    database.migrate();
    let mut client = database.client();
    let rows = client
        .query(
            "SELECT concat_ws(' ', c.relname, t.tgname, t.tgenabled)
             FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
             WHERE NOT t.tgisinternal AND c.relnamespace = 'content'::regnamespace ORDER BY 1",
            &[],
        )
        .unwrap();
    let triggers: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(
        triggers,
        [
            "film_work zzz_etl_delete A",
            "film_work zzz_etl_insert A",
            "film_work zzz_etl_touch A",
            "film_work zzz_etl_truncate A",
            "genre zzz_etl_delete A",
            "genre zzz_etl_touch A",
            "genre zzz_etl_truncate A",
            "genre_film_work zzz_etl_delete A",
            "genre_film_work zzz_etl_insert A",
            "genre_film_work zzz_etl_truncate A",
            "genre_film_work zzz_etl_update A",
            "person zzz_etl_delete A",
            "person zzz_etl_touch A",
            "person zzz_etl_truncate A",
            "person_film_work zzz_etl_delete A",
            "person_film_work zzz_etl_insert A",
            "person_film_work zzz_etl_truncate A",
            "person_film_work zzz_etl_update A",
        ]
    );
    assert_eq!(load_valid_indexes(&mut client), OUR_INDEXES);
}

#[test]
fn our_functions_cannot_be_led_astray() {
    let database = Database::new("functions");
    database.migrate();
    let functions = database
        .client()
        .query(
            "SELECT proname::text, prosecdef, prorettype = 'trigger'::regtype, coalesce(proconfig, '{}')
             FROM pg_proc WHERE pronamespace = 'etl'::regnamespace",
            &[],
        )
        .unwrap();
    assert!(functions.len() >= 10);
    for function in functions {
        let (name, is_definer, is_trigger): (String, bool, bool) =
            (function.get(0), function.get(1), function.get(2));
        let config: Vec<String> = function.get(3);
        // pg_temp last: else a temporary table could stand in for one of ours.
        assert!(
            config.contains(&"search_path=pg_catalog, pg_temp".to_owned()),
            "{name}: {config:?}"
        );
        // The others run with the rights of who calls them: nobody gains any by a call.
        assert_eq!(is_definer, is_trigger, "{name}");
    }
}

#[test]
fn our_columns_and_tables_are_described() {
    let database = Database::new("described");
    database.migrate();
    let nameless = database
        .client()
        .query(
            "SELECT c.oid::regclass || '.' || a.attname
             FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
             WHERE c.relnamespace = 'content'::regnamespace AND c.relkind = 'r'
                AND a.attname IN ('touched_at', 'indexed_at', 'rejected_at', 'fanned_out_at')
                AND col_description(c.oid, a.attnum) IS NULL
             UNION ALL
             SELECT oid::regclass::text FROM pg_class
             WHERE relnamespace = 'etl'::regnamespace AND relkind = 'r' AND relname NOT LIKE '\\_\\_%'
                AND obj_description(oid, 'pg_class') IS NULL",
            &[],
        )
        .unwrap();
    let nameless: Vec<String> = nameless.iter().map(|row| row.get(0)).collect();
    assert!(nameless.is_empty(), "{nameless:?}");
}
