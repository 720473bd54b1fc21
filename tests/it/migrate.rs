//! `etl migrate` beside the users' catalogue: what it adds, what it refuses, whom it makes wait, which
//! rights it needs, and that `--revert` takes everything back.

use std::time::{Duration, Instant};
use std::{env, process, thread};

use postgres::{Client, NoTls};
use serde_json::{Value, json};

use crate::support::command::{Outcome, etl, run, succeed};
use crate::support::database::Database;
use crate::support::world::{Running, World};

/// As a Django application makes it and people have changed it since: other types, nullable
/// timestamps, columns that we do not know, link tables without foreign keys or even an id, a trigger,
/// a view, comments.
const DJANGO: &str = "
    CREATE SCHEMA content;
    CREATE TYPE content.film_role AS ENUM ('director', 'actor', 'writer', 'composer');
    CREATE DOMAIN content.grade AS numeric(4, 1) CHECK (VALUE >= 0);
    CREATE TABLE content.film_work (
        created timestamptz, modified timestamptz,
        id uuid NOT NULL, title varchar(255) NOT NULL, description text, creation_date date,
        rating content.grade, type varchar(7), certificate varchar(512), tags json,
        title_length integer GENERATED ALWAYS AS (char_length(title)) STORED,
        CONSTRAINT film_work_pkey PRIMARY KEY (id));
    CREATE INDEX film_work_creation_date_idx ON content.film_work (creation_date);
    COMMENT ON TABLE content.film_work IS 'Films and series';
    COMMENT ON COLUMN content.film_work.rating IS 'Our own';
    CREATE TABLE content.genre (
        created timestamptz, modified timestamptz,
        id uuid PRIMARY KEY, name varchar(255) NOT NULL UNIQUE, description text);
    CREATE TABLE content.person (
        created timestamptz, modified timestamptz, id uuid PRIMARY KEY, full_name varchar(255));
    CREATE TABLE content.genre_film_work (
        id uuid PRIMARY KEY, film_work_id uuid, genre_id uuid, created timestamptz);
    CREATE TABLE content.person_film_work (
        film_work_id uuid, person_id uuid, role content.film_role, created timestamptz);
    CREATE UNIQUE INDEX film_work_person_idx
        ON content.person_film_work (film_work_id, person_id, role);
    CREATE FUNCTION content.moddatetime() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN NEW.modified := now(); RETURN NEW; END $$;
    CREATE TRIGGER film_work_modified BEFORE UPDATE ON content.film_work
        FOR EACH ROW EXECUTE FUNCTION content.moddatetime();
    CREATE VIEW content.best AS SELECT * FROM content.film_work WHERE rating > 9;";

/// Ten films with two people and a genre each. The first has no timestamp.
const ROWS: &str = "
    INSERT INTO content.film_work (id, title, rating, modified, tags)
    SELECT md5('film' || n)::uuid, 'Film ' || n, n, CASE WHEN n > 1 THEN now() END, '{\"n\": 1}'
    FROM generate_series(1, 10) AS n;
    INSERT INTO content.genre (id, name) VALUES (md5('genre')::uuid, 'Drama');
    INSERT INTO content.person (id, full_name)
    SELECT md5('person' || n)::uuid, 'Person ' || n FROM generate_series(1, 2) AS n;
    INSERT INTO content.genre_film_work (id, film_work_id, genre_id)
    SELECT md5('link' || n)::uuid, md5('film' || n)::uuid, md5('genre')::uuid
    FROM generate_series(1, 10) AS n;
    INSERT INTO content.person_film_work (film_work_id, person_id, role)
    SELECT md5('film' || n)::uuid, md5('person' || p)::uuid, role
    FROM generate_series(1, 10) AS n,
        (VALUES (1, 'actor'::content.film_role), (2, 'director')) AS r (p, role);";

const TABLES: [&str; 5] = ["film_work", "genre", "person", "genre_film_work", "person_film_work"];

// What is told ------------------------------------------------------------------------------------

#[test]
fn migrations_are_applied_alone() {
    let database = Database::new("migrate_alone");
    let outcome = migrate(&database);
    assert_eq!(outcome.stdout.lines().count(), 11, "{outcome}");
    assert!(
        outcome.stdout.lines().all(|line| line.starts_with("applying the migration ")),
        "{outcome}"
    );
    let outcome = migrate(&database);
    assert_eq!(
        (&*outcome.stdout, &*outcome.stderr),
        ("the database is up to date\n", ""),
        "{outcome}"
    );
}

#[test]
fn start_says_what_to_run_when_the_migrations_are_not_there() {
    let world = World::bare("not_migrated", "");
    check_refused(
        &world,
        "etl: the database is not prepared: run `etl migrate` (or `etl init-es`, which does it, too)",
    );
}

#[test]
fn start_says_what_to_run_when_the_migrations_are_older() {
    let mut world = World::new("older_migrations");
    world.sql(
        "DELETE FROM etl.__diesel_schema_migrations
         WHERE version IN (SELECT version FROM etl.__diesel_schema_migrations ORDER BY version DESC LIMIT 2)",
    );
    check_refused(
        &world,
        "etl: the database lacks 2 migrations of this version of etl: run `etl migrate`",
    );
}

#[test]
fn start_and_migrate_leave_a_database_of_a_newer_program_alone() {
    let mut world = World::new("newer_migrations");
    world.sql("INSERT INTO etl.__diesel_schema_migrations (version) VALUES ('99991231000001')");
    let before = load_definition(&mut world.client);
    let line = format!(
        "etl: the database has migration 99991231000001, which this version of etl ({}) does not know: use the newer etl",
        env!("CARGO_PKG_VERSION")
    );
    check_refused(&world, &line);
    for args in [&["migrate"][..], &["migrate", "--revert"]] {
        assert_eq!(world.fail(args), line);
    }
    assert_eq!(load_definition(&mut world.client), before);
}

/// Makes sure that `etl start` fails with this line alone.
#[track_caller]
fn check_refused(world: &World, line: &str) {
    let outcome = run(world.etl(&["start", "--until-idle"]));
    assert_eq!(
        outcome,
        Outcome { code: Some(1), stdout: String::new(), stderr: format!("{line}\n") }
    );
}

// What is added -----------------------------------------------------------------------------------

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

// What is refused ---------------------------------------------------------------------------------

/// Makes sure that a catalogue with this change is refused, with these reasons, and stays as it is.
#[track_caller]
fn check_not_followed(database: &Database, change: &str, expected: &[&str]) {
    let mut client = database.client();
    let sql =
        format!("DROP SCHEMA IF EXISTS content CASCADE; {DJANGO} DROP VIEW content.best; {change}");
    client.batch_execute(&sql).unwrap_or_else(|err| panic!("{change}: {err:?}"));
    let before = load_definition(&mut client);
    let outcome = run(etl(&["migrate", "--database-url", &database.url()]));
    assert_eq!(outcome.code, Some(1), "{change}\n{outcome}");
    let line = format!("etl: cannot follow this catalogue: {}\n", expected.join("; "));
    assert_eq!((&*outcome.stderr, &*outcome.stdout), (&*line, ""), "{change}\n{outcome}");
    assert_eq!(load_definition(&mut client), before, "{change}");
}

#[test]
fn columns_that_cannot_be_followed_are_refused_before_anything_is_changed() {
    let database = Database::new("refused_columns");
    let check = |change: &str, expected: &[&str]| check_not_followed(&database, change, expected);
    check(
        "ALTER TABLE content.film_work DROP COLUMN description",
        &["the column content.film_work.description is missing"],
    );
    check(
        "DROP TABLE content.person_film_work",
        &["the table content.person_film_work is missing"],
    );
    check(
        "ALTER TABLE content.film_work ALTER COLUMN modified TYPE timestamp",
        &[
            "content.film_work.modified is timestamp without time zone, but must be timestamp with time zone",
        ],
    );
    check(
        "ALTER TABLE content.film_work ALTER COLUMN rating TYPE text",
        &["content.film_work.rating is text, but must be a number"],
    );
    check(
        "ALTER TABLE content.person ALTER COLUMN full_name TYPE bytea USING NULL",
        &["content.person.full_name is bytea, but must be text"],
    );
    check(
        "ALTER TABLE content.genre_film_work ALTER COLUMN genre_id TYPE text",
        &["content.genre_film_work.genre_id is text, but must be uuid"],
    );
    check(
        "ALTER TABLE content.person DROP CONSTRAINT person_pkey",
        &["content.person has no primary key or unique index on id"],
    );
    check(
        "ALTER TABLE content.film_work DROP CONSTRAINT film_work_pkey;
         CREATE UNIQUE INDEX ON content.film_work (id) WHERE rating > 5;
         CREATE UNIQUE INDEX ON content.film_work (id, title)",
        &["content.film_work has no primary key or unique index on id"],
    );
}

#[test]
fn tables_that_cannot_be_followed_are_refused_before_anything_is_changed() {
    let database = Database::new("refused_tables");
    let check = |change: &str, expected: &[&str]| check_not_followed(&database, change, expected);
    check(
        "DROP TABLE content.genre;
         CREATE TABLE content.genre (id uuid PRIMARY KEY, name text, description text, modified timestamptz)
            PARTITION BY HASH (id)",
        &["content.genre is a partitioned table, whose triggers do not see every change"],
    );
    check(
        "CREATE TABLE content.series () INHERITS (content.film_work)",
        &[
            "content.film_work is a partition, or part of an inheritance, whose triggers do not see every change",
        ],
    );
    check(
        "CREATE TABLE content.human (id uuid); ALTER TABLE content.person INHERIT content.human",
        &[
            "content.person is a partition, or part of an inheritance, whose triggers do not see every change",
        ],
    );
    check(
        "DROP TABLE content.genre;
         CREATE VIEW content.genre AS SELECT md5('1')::uuid AS id, 'Drama'::text AS name, ''::text AS description, now() AS modified",
        &["content.genre is a view, whose triggers do not see every change"],
    );
    check(
        "DROP TABLE content.person;
         CREATE MATERIALIZED VIEW content.person AS SELECT md5('1')::uuid AS id, 'Ann'::text AS full_name, now() AS modified",
        &["content.person is a view, whose triggers do not see every change"],
    );
    check(
        "DROP TABLE content.genre;
         CREATE FOREIGN DATA WRAPPER elsewhere; CREATE SERVER elsewhere FOREIGN DATA WRAPPER elsewhere;
         CREATE FOREIGN TABLE content.genre (id uuid, name text, description text, modified timestamptz)
            SERVER elsewhere",
        &["content.genre is a foreign table, whose triggers do not see every change"],
    );
    check(
        "ALTER TABLE content.film_work ADD COLUMN indexed_at date",
        &["content.film_work has a column indexed_at, a name that etl needs for one of its own"],
    );
    check(
        "CREATE SCHEMA etl; CREATE TABLE etl.jobs (id integer)",
        &["there is a schema etl that another program made"],
    );
    check(
        "DROP SCHEMA etl CASCADE; ALTER TABLE content.film_work DROP COLUMN title CASCADE, DROP COLUMN modified;
         DROP TABLE content.genre_film_work",
        &[
            "the column content.film_work.title is missing",
            "the column content.film_work.modified is missing",
            "the table content.genre_film_work is missing",
        ],
    );
}

#[test]
fn types_that_hold_the_same_values_are_fine() {
    let database = Database::new("other_types");
    let mut client = database.client();
    for (column, types) in [
        ("film_work ALTER rating", &["double precision", "real", "numeric", "smallint"][..]),
        ("film_work ALTER title", &["text", "varchar(9)", "char(9)"]),
    ] {
        for name in types {
            let sql = format!(
                "DROP SCHEMA IF EXISTS content CASCADE; {DJANGO} DROP VIEW content.best;
                 ALTER TABLE content.film_work DROP COLUMN title_length;
                 ALTER TABLE content.{column} TYPE {name}"
            );
            client.batch_execute(&sql).unwrap();
            migrate(&database);
            revert(&database);
        }
    }
}

// Who has to wait ---------------------------------------------------------------------------------

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

// Who may do what ---------------------------------------------------------------------------------

#[test]
fn each_role_needs_no_more_rights_than_it_is_said_to() {
    let roles = Roles::new(&["owner", "service", "writer"]);
    let [owner, service, writer] = ["owner", "service", "writer"].map(|role| roles.name(role));
    let mut world = World::bare("grants", "");
    let mut admin = world.database.client();
    admin
        .batch_execute(&format!(
            "DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO \"{owner}\"', current_database()); END $$;
             SET ROLE \"{owner}\"; {DJANGO} {ROWS}
             ALTER TABLE content.film_work ALTER COLUMN rating TYPE numeric;
             GRANT USAGE ON SCHEMA content TO \"{writer}\";
             GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON {} TO \"{writer}\"",
            TABLES.map(|table| format!("content.{table}")).join(", ")
        ).replace("CREATE VIEW content.best AS SELECT * FROM content.film_work WHERE rating > 9;", ""))
        .unwrap();
    let as_role = |world: &World, role: &str, args: &[&str]| {
        let mut command = world.etl(args);
        command.env("DATABASE_URL", url_as(&world.database.url(), role));
        let outcome = run(command);
        assert_eq!(outcome.code, Some(0), "etl {} as {role}\n{outcome}", args.join(" "));
        outcome
    };

    as_role(&world, &owner, &["migrate"]);
    let grants = succeed(&["migrate", "--print-grants", &service]);
    admin.batch_execute(&grants).unwrap_or_else(|err| panic!("{err:?}\n{grants}"));
    // The engine refuses ratings that are out of its range.
    let mapping = env::temp_dir().join(format!("etl_grants_{}.json", process::id()));
    let mut definition: Value =
        serde_json::from_str(include_str!("../../src/elasticsearch/movies.json")).unwrap();
    definition["mappings"]["properties"]["imdb_rating"]["type"] = json!("byte");
    std::fs::write(&mapping, definition.to_string()).unwrap();
    as_role(&world, &service, &["init-es", "--mapping", mapping.to_str().unwrap()]);
    std::fs::remove_file(&mapping).unwrap();
    as_role(&world, &service, &["start", "--until-idle"]);
    world.check_in_step();

    let mut client = Client::connect(&url_as(&world.database.url(), &writer), NoTls).unwrap();
    assert!(client.batch_execute("SELECT FROM etl.outbox").is_err(), "the writer sees our tables");
    let mut write = |world: &mut World, sql: &str| {
        client.batch_execute(sql).unwrap_or_else(|err| panic!("{sql}: {err:?}"));
        as_role(world, &service, &["start", "--until-idle"]);
    };
    for change in [
        "INSERT INTO content.film_work (id, title) VALUES (md5('new')::uuid, 'New');
         INSERT INTO content.genre (id, name) VALUES (md5('new')::uuid, 'New');
         INSERT INTO content.person (id, full_name) VALUES (md5('new')::uuid, 'New');
         INSERT INTO content.genre_film_work (id, film_work_id, genre_id)
         VALUES (md5('new')::uuid, md5('new')::uuid, md5('new')::uuid);
         INSERT INTO content.person_film_work (film_work_id, person_id, role)
         VALUES (md5('new')::uuid, md5('new')::uuid, 'writer')",
        "UPDATE content.film_work SET title = 'Newer' WHERE title = 'New'",
        "UPDATE content.genre SET name = 'Newer' WHERE name = 'New'",
        "UPDATE content.person SET full_name = 'Newer' WHERE full_name = 'New'",
        "UPDATE content.genre_film_work SET genre_id = md5('new')::uuid",
        "UPDATE content.person_film_work SET role = 'writer' WHERE role = 'actor'",
        "UPDATE content.film_work SET id = md5('moved')::uuid WHERE id = md5('film9')::uuid",
        "DELETE FROM content.genre_film_work WHERE film_work_id = md5('film2')::uuid",
        "DELETE FROM content.person_film_work WHERE film_work_id = md5('film2')::uuid",
        "DELETE FROM content.film_work WHERE id = md5('film3')::uuid",
        "DELETE FROM content.genre WHERE id = md5('genre')::uuid",
        "DELETE FROM content.person WHERE id = md5('person1')::uuid",
        "TRUNCATE content.genre_film_work",
        "TRUNCATE content.person_film_work",
        "TRUNCATE content.genre",
        "TRUNCATE content.person",
    ] {
        write(&mut world, change);
        world.check_in_step();
    }

    // A document that is refused, tried again, and mended.
    write(&mut world, "UPDATE content.film_work SET rating = 500 WHERE id = md5('film4')::uuid");
    admin.batch_execute("RESET ROLE; UPDATE etl.rejected SET retry_at = now()").unwrap();
    as_role(&world, &service, &["start", "--until-idle"]);
    let attempts: i32 = admin.query_one("SELECT attempts FROM etl.rejected", &[]).unwrap().get(0);
    assert_eq!(attempts, 2);
    write(&mut world, "UPDATE content.film_work SET rating = 5 WHERE id = md5('film4')::uuid");
    world.check_in_step();

    // A document that the engine has in a version of the future.
    let (alias, id) = (world.engine.alias(), "00000000-0000-0000-0000-000000000001");
    let path = format!("/{alias}/_doc/{id}?version_type=external&version=99999999999999999");
    world.engine.succeed("PUT", &path, Some(&json!({ "title": "Of the future" })));
    write(
        &mut world,
        &format!("INSERT INTO content.film_work (id, title) VALUES ('{id}', 'Of today')"),
    );
    world.check_in_step();

    write(&mut world, "TRUNCATE content.film_work");
    world.check_in_step();
    assert!(world.engine.documents().is_empty());

    // The service cannot write what is the users'.
    let mut client = Client::connect(&url_as(&world.database.url(), &service), NoTls).unwrap();
    for sql in [
        "UPDATE content.film_work SET title = ''",
        "DELETE FROM content.film_work",
        "INSERT INTO content.genre (id, name) VALUES (md5('x')::uuid, 'x')",
        "TRUNCATE content.person",
        "DROP TRIGGER zzz_etl_touch ON content.film_work",
    ] {
        let err = client.batch_execute(sql).expect_err(sql);
        assert_eq!(
            err.code(),
            Some(&postgres::error::SqlState::INSUFFICIENT_PRIVILEGE),
            "{sql}: {err:?}"
        );
    }
}

#[test]
fn grants_name_any_role_as_it_is() {
    let grants = succeed(&["migrate", "--print-grants"]);
    assert!(grants.contains(" TO \"etl\";"), "{grants}");
    let grants = succeed(&["migrate", "--print-grants", "the \"search\" service"]);
    assert!(grants.lines().filter(|line| line.contains(" TO ")).count() >= 5, "{grants}");
    assert!(!grants.contains("ROLE"), "{grants}");
    assert_eq!(
        grants.matches(" TO ").count(),
        grants.matches(" TO \"the \"\"search\"\" service\";").count(),
        "{grants}"
    );
}

// Back again --------------------------------------------------------------------------------------

#[test]
fn up_down_and_up_again_leaves_the_catalogue_as_it_was() {
    let mut world = World::bare("up_down_up", DJANGO);
    world.sql(ROWS);
    let (definition, rows) = (load_definition(&mut world.client), load_rows(&mut world.client));
    world.succeed(&["init-es"]);
    assert_eq!(world.sync(), 10);
    world.sql("DELETE FROM content.person_film_work WHERE role = 'actor'");
    let left = load_rows(&mut world.client);
    assert_ne!(left, rows);

    world.succeed(&["migrate", "--revert"]);
    assert_eq!(load_definition(&mut world.client), definition);
    assert_eq!(load_rows(&mut world.client), left);
    world.sql("INSERT INTO content.film_work (id, title) VALUES (md5('new')::uuid, 'New')");
    check_refused(
        &world,
        "etl: the database is not prepared: run `etl migrate` (or `etl init-es`, which does it, too)",
    );
    // A second time there is nothing left to do.
    world.succeed(&["migrate", "--revert"]);
    assert_eq!(load_definition(&mut world.client), definition);

    world.succeed(&["init-es"]);
    assert_eq!(world.sync(), 11);
    world.check_in_step();
}

#[test]
fn a_catalogue_that_we_made_stays_when_we_go() {
    let mut world = World::new("made_by_us");
    world.sql("INSERT INTO content.film_work (id, title) VALUES (md5('film')::uuid, 'Solaris')");
    world.succeed(&["migrate", "--revert"]);
    let definition = load_definition(&mut world.client);
    assert!(!definition.iter().any(|line| line.contains("etl")), "{definition:#?}");
    assert_eq!(load_rows(&mut world.client).len(), 1);
    world.succeed(&["migrate"]);
    world.succeed(&["migrate", "--revert"]);
    assert_eq!(load_definition(&mut world.client), definition);
}

#[test]
fn what_others_put_into_our_schema_survives_a_revert() {
    let database = Database::new("shared_schema");
    database.migrate();
    let mut client = database.client();
    client.batch_execute("CREATE TABLE etl.jobs AS SELECT 1 AS id").unwrap();
    revert(&database);
    assert_eq!(client.query("SELECT id FROM etl.jobs", &[]).unwrap().len(), 1);
}

// Helpers -----------------------------------------------------------------------------------------

#[track_caller]
fn migrate(database: &Database) -> Outcome {
    let outcome = run(etl(&["migrate", "--database-url", &database.url()]));
    assert_eq!(outcome.code, Some(0), "{outcome}");
    outcome
}

#[track_caller]
fn revert(database: &Database) {
    succeed(&["migrate", "--revert", "--database-url", &database.url()]);
}

/// Waits until `etl` waits for such a lock in this database.
#[track_caller]
fn wait_until(client: &mut Client, condition: &str) {
    let sql = format!(
        "SELECT EXISTS (
            SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid)
            WHERE NOT l.granted AND a.datname = current_database() AND a.application_name LIKE 'etl %'
                AND {condition})"
    );
    let deadline = Instant::now() + Duration::from_secs(30);
    while !client.query_one(&sql, &[]).expect("look at the locks").get::<_, bool>(0) {
        assert!(Instant::now() < deadline, "etl does not wait for a lock with {condition}");
        thread::sleep(Duration::from_millis(20));
    }
}

const OUR_INDEXES: [&str; 5] = [
    "film_work_etl_pending",
    "genre_etl_fan_out",
    "genre_etl_pending",
    "person_etl_fan_out",
    "person_etl_pending",
];

/// The names of our database indexes that can be used.
fn load_valid_indexes(client: &mut Client) -> Vec<String> {
    let sql = "SELECT c.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
         WHERE i.indisvalid AND i.indisready AND c.relnamespace = 'content'::regnamespace
            AND c.relname LIKE '%\\_etl\\_%'
         ORDER BY 1";
    client.query(sql, &[]).expect("look at the indexes").iter().map(|row| row.get(0)).collect()
}

/// Everything that is defined in the database, a line each, sorted.
fn load_definition(client: &mut Client) -> Vec<String> {
    const SQL: &str = "
        WITH schemas AS (
            SELECT * FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
        ), relations AS (
            SELECT c.* FROM pg_class c JOIN schemas s ON s.oid = c.relnamespace
        )
        SELECT concat_ws(' ', 'schema', nspname, nspowner::regrole, nspacl) FROM schemas
        UNION ALL
        SELECT concat_ws(' ', 'relation', oid::regclass, relkind, relowner::regrole, relacl, relpersistence,
            reloptions, relreplident, relrowsecurity) FROM relations
        UNION ALL
        SELECT concat_ws(' ', 'column', c.oid::regclass || '.' || a.attname, a.attnum,
            format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated, a.attacl,
            pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum))
        FROM relations c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        UNION ALL
        SELECT concat_ws(' ', pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisprimary)
        FROM pg_index i JOIN relations c ON c.oid = i.indrelid
        UNION ALL
        SELECT concat_ws(' ', 'constraint', conrelid::regclass, conname, pg_get_constraintdef(k.oid), convalidated)
        FROM pg_constraint k JOIN schemas s ON s.oid = k.connamespace
        UNION ALL
        SELECT concat_ws(' ', pg_get_triggerdef(t.oid), t.tgenabled)
        FROM pg_trigger t JOIN relations c ON c.oid = t.tgrelid WHERE NOT t.tgisinternal
        UNION ALL
        SELECT concat_ws(' ', pg_get_functiondef(p.oid), p.proowner::regrole, p.proacl)
        FROM pg_proc p JOIN schemas s ON s.oid = p.pronamespace
        UNION ALL
        SELECT concat_ws(' ', 'type', t.oid::regtype, t.typtype, t.typowner::regrole)
        FROM pg_type t JOIN schemas s ON s.oid = t.typnamespace
        UNION ALL
        SELECT concat_ws(' ', 'view', oid::regclass, pg_get_viewdef(oid)) FROM relations WHERE relkind IN ('v', 'm')
        UNION ALL
        SELECT concat_ws(' ', 'comment', oid::regclass, obj_description(oid, 'pg_class')) FROM relations
        ORDER BY 1";
    client.batch_execute("SET search_path = pg_catalog").expect("set the path");
    client.query(SQL, &[]).expect("load the definition").iter().map(|row| row.get(0)).collect()
}

/// All rows of the catalogue without our columns, a line each, sorted.
fn load_rows(client: &mut Client) -> Vec<String> {
    let select = |table| {
        format!(
            "SELECT concat_ws(' ', '{table}', to_jsonb(r) - '{{touched_at,indexed_at,rejected_at,fanned_out_at}}'::text[])
             FROM content.{table} r"
        )
    };
    let sql = format!("{} ORDER BY 1", TABLES.map(select).join(" UNION ALL "));
    client.query(&sql, &[]).expect("load all rows").iter().map(|row| row.get(0)).collect()
}

/// Roles of one test alone. Dropped with the value, which must outlive the database.
struct Roles(Vec<String>);

impl Roles {
    fn new(purposes: &[&str]) -> Self {
        let roles = Self(
            purposes.iter().map(|purpose| format!("etl_{purpose}_{}", process::id())).collect(),
        );
        let mut server = connect_to_server().expect("connect");
        for role in &roles.0 {
            let sql = format!(
                "DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'"
            );
            server.batch_execute(&sql).expect("create a role");
        }
        roles
    }

    fn name(&self, purpose: &str) -> String {
        self.0.iter().find(|role| role.contains(purpose)).expect("a role of this purpose").clone()
    }
}

impl Drop for Roles {
    fn drop(&mut self) {
        let dropped = connect_to_server().and_then(|mut server| {
            server.batch_execute(&format!("DROP ROLE {}", self.0.join(", ")))
        });
        if let Err(err) = dropped {
            eprintln!("could not drop the roles {:?}: {err}", self.0);
        }
    }
}

const PASSWORD: &str = "etl";

fn connect_to_server() -> Result<Client, postgres::Error> {
    Client::connect(&env::var("DATABASE_URL").expect("DATABASE_URL is set"), NoTls)
}

/// The same URL for another role.
fn url_as(url: &str, role: &str) -> String {
    let (scheme, rest) = url.split_once("://").expect("a URL");
    let (_, rest) = rest.split_once('@').unwrap_or(("", rest));
    format!("{scheme}://{role}:{PASSWORD}@{rest}")
}
