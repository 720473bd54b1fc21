//! An engine that asks who we are, and lets nobody do more than he may. Elasticsearch 8.19 alone has that among
//! the engines of `dev/`, so these tests are left out on the others; they start a node of their own beside it.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::command::Outcome;
use crate::support::engine::{Engine, own_engine};
use crate::support::world::{Running, World};

const ENGINE: &str = "elasticsearch-8.19";

const FILMS: &str = "INSERT INTO content.film_work (id, title)
    SELECT ('00000000-0000-4000-9000-' || lpad(n::text, 12, '0'))::uuid, 'Film ' || n
    FROM generate_series(1, 6) AS n";

const CHANGES: &str = "UPDATE content.film_work SET title = 'edited' WHERE title = 'Film 1';
    DELETE FROM content.film_work WHERE title = 'Film 2'";

/// What a user needs who makes and keeps an index.
const ALL: &[&str] = &["manage", "read", "write"];

const PASSWORD: &str = "right-password";

/// The node with security. All tests share it.
struct Node {
    /// With the user who may do everything.
    url: String,
    /// Ends, and the node with it, when its standard input does: with this process.
    _dev_servers: Child,
}

impl Node {
    /// `None` if the engine of the other tests is not the one that has security; says so.
    fn get(test: &str) -> Option<&'static Self> {
        static NODE: OnceLock<Node> = OnceLock::new();
        if own_engine().as_deref() != Some(ENGINE) {
            eprintln!("{test}: skipped, only {ENGINE} of dev/servers has users and rights");
            return None;
        }
        Some(NODE.get_or_init(Self::start))
    }

    fn start() -> Self {
        let mut dev_servers = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/dev/servers"))
            .args(["run", "security", "--", "sh", "-c", "echo $ELASTICSEARCH_URL; exec cat"])
            .env_remove("ELASTICSEARCH_URL")
            .env("ENGINE", ENGINE)
            .env("ETL_ENGINE_SECURITY", "on")
            // Not ended with our group: it is to stop the node first.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("start dev/servers");
        let mut url = String::new();
        let stdout = dev_servers.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut url).expect("a line");
        assert!(!url.is_empty(), "no node, see target/dev/security/engine.log");
        Self { url: url.trim().to_owned(), _dev_servers: dev_servers }
    }

    /// A catalogue of six films and an index, both made by the user who may do everything.
    fn world(&self, name: &str) -> World {
        let mut world = World::on_engine(name, self.url.clone());
        world.succeed(&["init-es"]);
        world.sql(FILMS);
        world
    }

    /// The URL of the node as another user, or as none.
    fn url_as(&self, user: &str) -> String {
        let (_, host) = self.url.split_once('@').expect("a URL with a user");
        format!("http://{user}{host}")
    }
}

/// What a role may do: this on the indices of the prefix, and nothing else.
fn rights(world: &World, privileges: &[&str]) -> Value {
    let indices =
        json!({ "names": [format!("{}*", world.engine.alias())], "privileges": privileges });
    // There is no privilege that is none.
    let indices = if privileges.is_empty() { json!([]) } else { json!([indices]) };
    json!({ "indices": indices })
}

/// Gives or takes the rights of the world's user.
fn set_rights(world: &World, privileges: &[&str]) {
    let path = format!("/_security/role/{}", world.engine.prefix);
    world.engine.succeed("PUT", &path, Some(&rights(world, privileges)));
}

/// Makes the world's user, with these rights. Returns the URL of the node as this user.
fn make_user(world: &World, node: &Node, privileges: &[&str]) -> String {
    set_rights(world, privileges);
    let name = &world.engine.prefix;
    let user = json!({ "password": PASSWORD, "roles": [name] });
    world.engine.succeed("PUT", &format!("/_security/user/{name}"), Some(&user));
    node.url_as(&format!("{name}:{PASSWORD}@"))
}

/// Waits for the end, which is to come with exit code 1 and one line that shows no secret; returns this line.
#[track_caller]
fn refused(running: Running, secret: &str) -> String {
    let outcome = running.wait();
    assert_eq!(outcome.code, Some(1), "{outcome}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome}");
    assert!(!outcome.to_string().contains(secret), "{outcome}");
    outcome.stderr
}

#[track_caller]
fn check_count(world: &mut World, rows: &str, expected: i64) {
    let sql = format!("SELECT count(*) FROM {rows}");
    let count: i64 = world.client.query_one(&sql, &[]).unwrap().get(0);
    assert_eq!(count, expected, "{rows}");
}

/// Lets the program do what is pending, which is all.
#[track_caller]
fn succeed(running: Running) -> Outcome {
    let outcome = running.wait();
    assert_eq!(outcome.code, Some(0), "{outcome}");
    outcome
}

#[test]
fn a_wrong_password_or_key_is_one_line_that_does_not_show_it() {
    let Some(node) = Node::get("security_password") else { return };
    let mut world = node.world("security_password");
    make_user(&world, node, ALL);
    let url = node.url_as(&format!("{}:wr0ng@", world.engine.prefix));
    for command in [&["init-es"][..], &["start"], &["start", "--until-idle"]] {
        let running = world.spawn(&[command, &["--elasticsearch-url", &url]].concat());
        let line = refused(running, "wr0ng");
        assert!(line.contains("with status 401 (security_exception: unable to auth"), "{line}");
    }
    let args = ["--elasticsearch-url", &node.url_as(""), "--elasticsearch-api-key", "d3JvbmcK"];
    let line = refused(world.spawn(&[&["start"], &args[..]].concat()), "d3JvbmcK");
    assert!(line.contains("with status 401 (security_exception: "), "{line}");
    check_count(&mut world, "content.film_work WHERE indexed_at IS NULL", 6);
    check_count(&mut world, "etl.rejected", 0);
}

#[test]
fn rights_on_the_indices_of_the_prefix_are_enough() {
    let Some(node) = Node::get("security_prefix") else { return };
    let mut world = World::on_engine("security_prefix", node.url.clone());
    let url = make_user(&world, node, ALL);
    let (status, _) =
        Engine::on_server(url.clone(), "security_prefix_as").request("GET", "/", None);
    assert_eq!(status, 403, "who may see the cluster may more than this test is about");
    let url = ["--elasticsearch-url", &*url];
    succeed(world.spawn(&[&["init-es"], &url[..]].concat()));
    world.sql(FILMS);
    let start = [&["start", "--until-idle"], &url[..]].concat();
    succeed(world.spawn(&start));
    world.check_in_step();
    world.sql(CHANGES);
    succeed(world.spawn(&start));
    world.check_in_step();
    world.sql("TRUNCATE content.film_work CASCADE");
    succeed(world.spawn(&start));
    world.check_in_step();
    check_count(&mut world, "etl.outbox", 0);
}

#[test]
fn an_api_key_is_as_good_as_a_password() {
    let Some(node) = Node::get("security_key") else { return };
    let mut world = node.world("security_key");
    let role = rights(&world, ALL);
    let key = json!({ "name": world.engine.prefix, "role_descriptors": { "keeper": role } });
    let key = world.engine.succeed("POST", "/_security/api_key", Some(&key));
    let key = key["encoded"].as_str().expect("a key");
    let args = ["--elasticsearch-url", &node.url_as(""), "--elasticsearch-api-key", key];
    succeed(world.spawn(&[&["start", "--until-idle"], &args[..]].concat()));
    world.check_in_step();
}

#[test]
fn a_user_who_may_not_write_is_told_what_is_missing() {
    let Some(node) = Node::get("security_write") else { return };
    let mut world = node.world("security_write");
    let url = make_user(&world, node, &["manage", "read"]);
    let cases = [
        (
            &["manage", "read"][..],
            "/_bulk` with status 403 (security_exception: action [indices:data/write/bulk] is unauthorized for user",
        ),
        (
            &["read", "write", "view_index_metadata"],
            "`POST /_aliases` with status 403 (security_exception: action [indices:admin/aliases] is unauthorized for user",
        ),
    ];
    for (privileges, said) in cases {
        set_rights(&world, privileges);
        for command in [&["start"][..], &["start", "--until-idle"]] {
            let running = world.spawn(&[command, &["--elasticsearch-url", &url]].concat());
            let line = refused(running, PASSWORD);
            assert!(line.contains(said), "{line}");
        }
    }
    check_count(&mut world, "content.film_work WHERE indexed_at IS NULL", 6);
    check_count(&mut world, "etl.rejected", 0);
    assert!(world.engine.documents().is_empty());
}

#[test]
fn rights_that_are_taken_away_for_a_while_are_told_and_cost_nothing() {
    let Some(node) = Node::get("security_taken") else { return };
    // All at the same time, since a pause of ten seconds is waited for.
    let left: [(&str, &[&str]); 3] =
        [("none", &[]), ("no_write", &["manage", "read"]), ("no_manage", &["read", "write"])];
    let mut runs = left.map(|(name, left)| {
        let mut world = node.world(&format!("security_{name}"));
        let url = make_user(&world, node, ALL);
        let running = world.spawn(&["start", "--elasticsearch-url", &url]);
        world.wait_in_step();
        set_rights(&world, left);
        world.sql(CHANGES);
        (world, running)
    });
    for (world, running) in &mut runs {
        running.wait_until_said(&["ERROR", "with status 403 (security_exception: action ["]);
        check_count(world, "etl.rejected", 0);
        set_rights(world, ALL);
    }
    let given = Instant::now();
    for (mut world, running) in runs {
        world.wait_in_step();
        assert!(given.elapsed() < Duration::from_secs(15), "took {:?}", given.elapsed());
        check_count(&mut world, "etl.rejected", 0);
        let outcome = running.end();
        assert!(!outcome.stderr.contains("init-es"), "nothing was lost\n{outcome}");
    }
}
