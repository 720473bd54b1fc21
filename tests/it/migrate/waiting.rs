//! Who has to wait for whom, and what was interrupted.

use super::{DJANGO, OUR_INDEXES, ROWS, load_valid_indexes, migrate, revert, wait_until};
use crate::support::database::Database;
use crate::support::world::{Running, World};

#[test]
fn no_table_is_rewritten() {
    let database = Database::new("rewritten");
    let mut client = database.client();
    client.batch_execute(&format!("{DJANGO}{ROWS}")).unwrap();
    let mut load_files = || -> Vec<u32> {
        let sql = "SELECT relfilenode FROM pg_class WHERE relnamespace = 'content'::regnamespace AND relkind = 'r'
                   ORDER BY relname";
        client.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
    };
    let before = load_files();
    migrate(&database);
    assert_eq!(load_files(), before);
    revert(&database);
    assert_eq!(load_files(), before);
}

#[test]
fn writers_go_on_while_migrate_waits_for_a_long_transaction() {
    let mut world = World::bare("long_transaction", DJANGO);
    world.sql(ROWS);
    world.sql("BEGIN; LOCK TABLE content.film_work IN ROW SHARE MODE");
    let mut writer = world.database.client();
    writer.batch_execute("SET lock_timeout = '5s'").unwrap();

    let migrating = world.spawn(&["migrate"]);
    for _ in 0..3 {
        // Also the writer that comes while migrate stands in the queue, and so behind it.
        wait_until(
            &mut writer,
            "relation = 'content.film_work'::regclass AND mode = 'AccessExclusiveLock'",
        );
        writer.batch_execute("UPDATE content.film_work SET title = title").unwrap();
    }
    world.sql("COMMIT");
    let outcome = migrating.wait();
    assert_eq!(outcome.code, Some(0), "{outcome}");
    assert_eq!(load_valid_indexes(&mut world.client), OUR_INDEXES);
}

#[test]
fn an_index_is_built_however_long_other_transactions_take() {
    let mut world = World::bare("long_build", DJANGO);
    migrate(&world.database);
    world.sql(
        "DROP INDEX content.film_work_etl_pending;
         DELETE FROM etl.__diesel_schema_migrations WHERE version LIKE '%000003'",
    );
    world.sql("BEGIN; LOCK TABLE content.film_work IN ROW EXCLUSIVE MODE");
    let mut writer = world.database.client();

    let migrating = world.spawn(&["migrate"]);
    // Longer than the lock_timeout of our sessions, which is 5 s.
    wait_until(
        &mut writer,
        "locktype = 'virtualxid' AND waitstart < clock_timestamp() - interval '5.5 s'",
    );
    writer
        .batch_execute("SET lock_timeout = '1s'; UPDATE content.film_work SET title = title")
        .unwrap();
    world.sql("COMMIT");
    let outcome = migrating.wait();
    assert_eq!(outcome.code, Some(0), "{outcome}");
    assert_eq!(load_valid_indexes(&mut world.client), OUR_INDEXES);
}

#[test]
fn a_writer_in_the_way_is_never_ended_by_a_deadlock() {
    let mut world = World::bare("deadlock", DJANGO);
    world.sql(ROWS);
    let mut observer = world.database.client();
    for args in [&["migrate"][..], &["migrate", "--revert"]] {
        world.sql("BEGIN; UPDATE content.person_film_work SET created = now()");
        let migrating = world.spawn(args);
        wait_until(&mut observer, "relation = 'content.person_film_work'::regclass");
        // migrate has this one already: each waits for the other now.
        world.sql("UPDATE content.film_work SET title = title; COMMIT");
        let outcome = migrating.wait();
        assert_eq!(outcome.code, Some(0), "{args:?}\n{outcome}");
    }
}

#[test]
fn two_at_once_both_end_well() {
    let world = World::bare("two_at_once", DJANGO);
    let both = [world.spawn(&["migrate"]), world.spawn(&["migrate"])].map(Running::wait);
    let [first, second] = &both;
    assert_eq!((first.code, second.code), (Some(0), Some(0)), "{first}\n{second}");
    let stdout = [&*first.stdout, &second.stdout];
    assert_eq!(
        stdout.iter().filter(|stdout| **stdout == "the database is up to date\n").count(),
        1,
        "{stdout:?}"
    );
}

#[test]
fn an_index_whose_building_was_interrupted_is_built_again() {
    let database = Database::new("half_built");
    database.migrate();
    let mut client = database.client();
    client
        .batch_execute(
            "UPDATE pg_index SET indisvalid = false
             WHERE indexrelid IN ('content.film_work_etl_pending'::regclass, 'content.genre_etl_fan_out'::regclass);
             DELETE FROM etl.__diesel_schema_migrations WHERE version LIKE '%000003' OR version LIKE '%000005'",
        )
        .unwrap();
    assert_eq!(
        load_valid_indexes(&mut client),
        ["genre_etl_pending", "person_etl_fan_out", "person_etl_pending"]
    );
    migrate(&database);
    assert_eq!(load_valid_indexes(&mut client), OUR_INDEXES);
}

#[test]
fn a_killed_migrate_is_finished_by_the_next_one() {
    let mut world = World::bare("killed_migrate", DJANGO);
    world.sql("BEGIN; LOCK TABLE content.person IN ROW SHARE MODE");
    let mut observer = world.database.client();
    let migrating = world.spawn(&["migrate"]);
    wait_until(&mut observer, "relation = 'content.person'::regclass");
    drop(migrating);
    world.sql("COMMIT");
    migrate(&world.database);
    assert_eq!(load_valid_indexes(&mut world.client), OUR_INDEXES);
}
