//! Who may do what.

use std::{env, process};

use postgres::{Client, NoTls};
use serde_json::{Value, json};

use super::{DJANGO, ROWS, TABLES};
use crate::support::command::{run, succeed};
use crate::support::world::World;

/// What the writer does, each by itself.
const CHANGES: [&str; 16] = [
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
];

/// What the service may not do: it is the users'.
const FORBIDDEN: [&str; 5] = [
    "UPDATE content.film_work SET title = ''",
    "DELETE FROM content.film_work",
    "INSERT INTO content.genre (id, name) VALUES (md5('x')::uuid, 'x')",
    "TRUNCATE content.person",
    "DROP TRIGGER zzz_etl_touch ON content.film_work",
];

#[test]
fn each_role_needs_no_more_rights_than_it_is_said_to() {
    let roles = Roles::new(&["owner", "service", "writer"]);
    let [owner, service, writer] = ["owner", "service", "writer"].map(|role| roles.name(role));
    let mut world = World::bare("grants", "");
    let mut admin = world.database.client();
    make_catalogue(&mut admin, &owner, &writer);
    as_role(&world, &owner, &["migrate"]);
    let grants = succeed(&["migrate", "--print-grants", &service]);
    admin.batch_execute(&grants).unwrap_or_else(|err| panic!("{err:?}\n{grants}"));
    init_with_small_ratings(&world, &service);
    as_role(&world, &service, &["start", "--until-idle"]);
    world.check_in_step();

    let mut client = Client::connect(&url_as(&world.database.url(), &writer), NoTls).unwrap();
    assert!(client.batch_execute("SELECT FROM etl.outbox").is_err(), "the writer sees our tables");
    let mut write = |world: &mut World, sql: &str| {
        client.batch_execute(sql).unwrap_or_else(|err| panic!("{sql}: {err:?}"));
        as_role(world, &service, &["start", "--until-idle"]);
    };
    for change in CHANGES {
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
    for sql in FORBIDDEN {
        let err = client.batch_execute(sql).expect_err(sql);
        assert_eq!(
            err.code(),
            Some(&postgres::error::SqlState::INSUFFICIENT_PRIVILEGE),
            "{sql}: {err:?}"
        );
    }
}

/// Makes a catalogue as Django does, of which the owner has everything and the writer the rows.
fn make_catalogue(admin: &mut Client, owner: &str, writer: &str) {
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
}

/// Runs a command that is to end well.
fn as_role(world: &World, role: &str, args: &[&str]) {
    let mut command = world.etl(args);
    command.env("DATABASE_URL", url_as(&world.database.url(), role));
    let outcome = run(command);
    assert_eq!(outcome.code, Some(0), "etl {} as {role}\n{outcome}", args.join(" "));
}

/// Makes an index that refuses ratings that are out of its range.
fn init_with_small_ratings(world: &World, role: &str) {
    let mapping = env::temp_dir().join(format!("etl_grants_{}.json", process::id()));
    let mut definition: Value =
        serde_json::from_str(include_str!("../../../src/elasticsearch/movies.json")).unwrap();
    definition["mappings"]["properties"]["imdb_rating"]["type"] = json!("byte");
    std::fs::write(&mapping, definition.to_string()).unwrap();
    as_role(world, role, &["init-es", "--mapping", mapping.to_str().unwrap()]);
    std::fs::remove_file(&mapping).unwrap();
}

#[test]
fn a_role_without_rights_on_what_a_migration_has_added_is_told_so() {
    let roles = Roles::new(&["upgraded"]);
    let role = roles.name("upgraded");
    let mut world = World::new("rights");
    world.sql(&succeed(&["migrate", "--print-grants", &role]));
    world.sql(&format!("REVOKE ALL ON etl.link FROM \"{role}\""));
    let mut command = world.etl(&["start", "--until-idle"]);
    command.env("DATABASE_URL", url_as(&world.database.url(), &role));
    let outcome = run(command);
    assert_eq!(
        (outcome.code, &*outcome.stderr),
        (
            Some(1),
            &*format!(
                "etl: the role {role} lacks rights on etl.link: have the owner of the tables run what `etl migrate --print-grants {role}` prints\n"
            )
        )
    );
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
