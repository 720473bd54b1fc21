//! `etl migrate` beside the users' catalogue: what it adds, what it refuses, whom it makes wait, which
//! rights it needs, and that `--revert` takes everything back.

mod added; // what is added, and what stays as it is
mod refused; // what cannot be followed
mod roles; // who may do what
mod waiting; // who has to wait for whom

use std::thread;
use std::time::{Duration, Instant};

use postgres::Client;

use crate::support::command::{Outcome, etl, run, succeed};
use crate::support::database::Database;
use crate::support::world::World;

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

#[test]
fn migrations_are_applied_alone() {
    let database = Database::new("migrate_alone");
    let outcome = migrate(&database);
    assert_eq!(outcome.stdout.lines().count(), 12, "{outcome}");
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
