//! A catalogue, an index of its own, and the program between them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use postgres::Client;
use serde_json::Value;
use uuid::Uuid;

use super::command::{Outcome, etl, run};
use super::database::Database;
use super::engine::{Engine, Stored};

/// What the database says the documents of a kind are. The test's own queries, written after the
/// description of the documents and not after the program.
fn expected(kind: &str) -> &'static str {
    match kind {
        "movies" => MOVIES,
        "persons" => PERSONS,
        "genres" => GENRES,
        _ => panic!("there is no such kind: {kind}"),
    }
}

const MOVIES: &str = r#"
    WITH people AS (
        SELECT DISTINCT l.film_work_id, l.role::text AS role, p.id, p.full_name::text AS name
        FROM content.person_film_work l JOIN content.person p ON p.id = l.person_id
    ), by_role AS (
        SELECT film_work_id, role,
            json_agg(name ORDER BY name COLLATE "C", id) AS names,
            json_agg(json_build_object('id', id, 'name', name) ORDER BY name COLLATE "C", id) AS objects
        FROM people GROUP BY film_work_id, role
    ), genres AS (
        SELECT film_work_id, json_agg(name ORDER BY name COLLATE "C", id) AS names
        FROM (
            SELECT DISTINCT l.film_work_id, g.id, g.name::text AS name
            FROM content.genre_film_work l JOIN content.genre g ON g.id = l.genre_id) AS linked
        GROUP BY film_work_id
    )
    SELECT f.id, json_build_object(
        'id', f.id,
        'imdb_rating', CASE WHEN f.rating::text = 'NaN' THEN NULL ELSE f.rating::text::float8 END,
        'genres', coalesce(g.names, '[]'),
        'title', f.title,
        'description', f.description,
        'directors_names', coalesce(d.names, '[]'), 'directors', coalesce(d.objects, '[]'),
        'actors_names', coalesce(a.names, '[]'), 'actors', coalesce(a.objects, '[]'),
        'writers_names', coalesce(w.names, '[]'), 'writers', coalesce(w.objects, '[]')) AS document
    FROM content.film_work f
    LEFT JOIN genres g ON g.film_work_id = f.id
    LEFT JOIN by_role d ON d.film_work_id = f.id AND d.role = 'director'
    LEFT JOIN by_role a ON a.film_work_id = f.id AND a.role = 'actor'
    LEFT JOIN by_role w ON w.film_work_id = f.id AND w.role = 'writer'"#;

const PERSONS: &str = r#"
    WITH by_film AS (
        SELECT l.person_id, f.id,
            coalesce(json_agg(DISTINCT l.role::text COLLATE "C") FILTER (WHERE l.role IS NOT NULL), '[]') AS roles
        FROM content.person_film_work l JOIN content.film_work f ON f.id = l.film_work_id
        GROUP BY l.person_id, f.id
    )
    SELECT p.id, json_build_object('id', p.id, 'full_name', p.full_name,
        'films', coalesce(
            (SELECT json_agg(json_build_object('id', b.id, 'roles', b.roles) ORDER BY b.id)
             FROM by_film b WHERE b.person_id = p.id), '[]')) AS document
    FROM content.person p"#;

const GENRES: &str = "
    SELECT id, json_build_object('id', id, 'name', name, 'description', description) AS document
    FROM content.genre";

/// All kinds of documents.
pub const ALL_KINDS: &str = "movies,persons,genres";

/// A catalogue, an index of its own, and the program between them.
pub struct World {
    /// The kinds of documents that are kept.
    pub kinds: &'static str,
    pub database: Database,
    pub engine: Engine,
    pub client: Client,
}

impl World {
    /// A catalogue that `etl` has made, and an index.
    pub fn new(name: &str) -> Self {
        Self::on_catalogue(name, "")
    }

    /// A catalogue that an application has made by this SQL, and an index.
    pub fn on_catalogue(name: &str, sql: &str) -> Self {
        let world = Self::bare(name, sql);
        world.succeed(&["init-es"]);
        world
    }

    /// A catalogue, and an index for each kind of documents. The other worlds keep the films alone.
    pub fn with_all_kinds(name: &str, sql: &str) -> Self {
        let world = Self { kinds: ALL_KINDS, ..Self::bare(name, sql) };
        world.succeed(&["init-es"]);
        world
    }

    /// A catalogue that `etl` has made on this server, and an index.
    #[allow(dead_code, reason = "the torture test has one server")]
    pub fn on_server(name: &str, server_url: String) -> Self {
        let world = Self::of_database(name, Database::on_server(server_url, name), "");
        world.succeed(&["init-es"]);
        world
    }

    /// A catalogue, and no index yet.
    pub fn bare(name: &str, sql: &str) -> Self {
        Self::of_database(name, Database::new(name), sql)
    }

    /// A catalogue, and no index yet, on this engine.
    #[allow(dead_code, reason = "the torture test has one engine")]
    pub fn on_engine(name: &str, engine_url: String) -> Self {
        let (database, engine) = (Database::new(name), Engine::on_server(engine_url, name));
        Self { kinds: "movies", client: database.client(), database, engine }
    }

    fn of_database(name: &str, database: Database, sql: &str) -> Self {
        let engine = Engine::new(name);
        let mut client = database.client();
        client.batch_execute(sql).expect("make the catalogue");
        Self { kinds: "movies", database, engine, client }
    }

    /// The program with the settings of this world.
    pub fn etl(&self, args: &[&str]) -> Command {
        let mut command = etl(args);
        command
            .env("DATABASE_URL", self.database.url())
            .env("ELASTICSEARCH_URL", &self.engine.url)
            .env("ETL_KINDS", self.kinds)
            .env("ETL_INDEX_PREFIX", &self.engine.prefix);
        command
    }

    /// Runs the program, which is to succeed.
    #[track_caller]
    pub fn succeed(&self, args: &[&str]) -> Outcome {
        let outcome = run(self.etl(args));
        assert!(outcome.code == Some(0), "`etl {}` failed\n{outcome}", args.join(" "));
        outcome
    }

    /// Runs the program, which is to fail with exit code 1 and one line; returns this line.
    #[track_caller]
    pub fn fail(&self, args: &[&str]) -> String {
        let outcome = run(self.etl(args));
        assert!(outcome.code == Some(1), "`etl {}` did not fail with 1\n{outcome}", args.join(" "));
        let errors: Vec<&str> =
            outcome.stderr.lines().filter(|line| line.starts_with("etl: ")).collect();
        assert_eq!(errors.len(), 1, "{outcome}");
        errors[0].to_owned()
    }

    /// Starts the program and goes on.
    pub fn spawn(&self, args: &[&str]) -> Running {
        let mut command = self.etl(args);
        Running::new(
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start etl"),
        )
    }

    /// Runs SQL as an application does.
    #[track_caller]
    pub fn sql(&mut self, sql: &str) {
        self.client.batch_execute(sql).unwrap_or_else(|err| panic!("{sql}: {err:?}"));
    }

    /// Lets the program do what is pending. Returns how many documents it sent.
    #[track_caller]
    pub fn sync(&self) -> usize {
        let outcome = self.succeed(&["start", "--until-idle"]);
        let line = outcome.stderr.lines().find(|line| line.contains("documents were sent"));
        let line =
            line.unwrap_or_else(|| panic!("no line says how many documents were sent\n{outcome}"));
        let count = line.split("; ").nth(1).and_then(|rest| rest.split(' ').next());
        count.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no count in `{line}`"))
    }

    /// Makes sure that the index holds exactly the documents that the database gives.
    #[track_caller]
    pub fn check_in_step(&mut self) {
        if let Some(difference) = self.difference() {
            panic!("{difference}");
        }
    }

    /// Waits until the index holds exactly the documents that the database gives.
    #[track_caller]
    pub fn wait_in_step(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while let Some(difference) = self.difference() {
            assert!(Instant::now() < deadline, "after a minute still: {difference}");
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until a query gives a row, for 10 s at most.
    #[track_caller]
    pub fn wait_for_row(&mut self, sql: &str) {
        for _ in 0..200 {
            if !self.client.query(sql, &[]).unwrap().is_empty() {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("no row within 10 s: {sql}");
    }

    /// The documents of all kinds that are kept. No two rows have the same id.
    pub fn documents(&self) -> BTreeMap<Uuid, Stored> {
        self.kinds.split(',').flat_map(|kind| self.engine.documents_of(kind)).collect()
    }

    /// Says where an index is not what the database gives.
    pub fn difference(&mut self) -> Option<String> {
        self.kinds.split(',').find_map(|kind| self.difference_of(kind))
    }

    fn difference_of(&mut self, kind: &str) -> Option<String> {
        let rows = self.client.query(expected(kind), &[]).expect("ask what the documents are");
        let expected: BTreeMap<Uuid, Value> =
            rows.iter().map(|row| (row.get("id"), normal(row.get("document")))).collect();
        let mut found = self.engine.documents_of(kind);
        let one = kind.trim_end_matches('s').replace("movie", "film");
        for (id, document) in &expected {
            match found.remove(id) {
                None => return Some(format!("{one} {id} is not in the index: {document}")),
                Some(stored) if normal(stored.source.clone()) != *document => {
                    return Some(format!(
                        "{one} {id} is\n{}\ninstead of\n{document}",
                        stored.source
                    ));
                }
                Some(_) => (),
            }
        }
        found
            .into_iter()
            .next()
            .map(|(id, stored)| format!("{one} {id} should be gone: {}", stored.source))
    }
}

/// A rating of 8 and one of 8.0 are the same.
fn normal(mut document: Value) -> Value {
    if let Some(rating) = document["imdb_rating"].as_f64() {
        document["imdb_rating"] = rating.into();
    }
    document
}

/// The program, running. Killed when dropped.
pub struct Running {
    child: Option<Child>,
    /// What it has said so far on its standard error.
    said: Arc<Mutex<String>>,
    listener: Option<JoinHandle<()>>,
}

impl Running {
    fn new(mut child: Child) -> Self {
        let stderr = child.stderr.take().expect("its standard error is a pipe");
        let said = Arc::new(Mutex::new(String::new()));
        let heard = Arc::clone(&said);
        let listener = thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let mut heard = heard.lock().unwrap();
                heard.push_str(&String::from_utf8_lossy(&line));
                heard.push('\n');
            }
        });
        Self { child: Some(child), said, listener: Some(listener) }
    }

    /// The id of the process.
    pub fn id(&self) -> u32 {
        self.child.as_ref().expect("not ended").id()
    }

    /// What it has said so far.
    #[allow(dead_code, reason = "the torture test looks at the end")]
    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Waits until it has said a line with all of these words, and returns the first of them.
    #[track_caller]
    pub fn wait_until_said(&self, words: &[&str]) -> String {
        let deadline = Instant::now() + Duration::from_secs(30);
        let has_all = |line: &&str| words.iter().all(|word| line.contains(word));
        loop {
            let said = self.said();
            if let Some(line) = said.lines().find(has_all) {
                return line.to_owned();
            }
            assert!(Instant::now() < deadline, "in 30 s no line with {words:?}\n{said}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: &str) {
        let id = self.id().to_string();
        let status = Command::new("kill").args([signal, &id]).status().expect("run kill");
        assert!(status.success(), "could not send {signal}");
    }

    /// Tells it to end, which it is to do with exit code 0.
    #[track_caller]
    pub fn end(self) -> Outcome {
        self.signal("-TERM");
        let outcome = self.wait();
        assert_eq!(outcome.code, Some(0), "{outcome}");
        outcome
    }

    /// Waits for the end.
    #[track_caller]
    pub fn wait(mut self) -> Outcome {
        let mut child = self.child.take().expect("not ended");
        let listener = self.listener.take().expect("not ended");
        let deadline = Instant::now() + Duration::from_secs(60);
        while child.try_wait().expect("ask for the exit code").is_none() {
            if Instant::now() > deadline {
                let _ = child.kill();
                let said = self.said.lock().unwrap();
                panic!("etl did not end within a minute\n{said}");
            }
            thread::sleep(Duration::from_millis(10));
        }
        listener.join().expect("it was listened to");
        let stderr = self.said.lock().unwrap().clone();
        Outcome { stderr, ..child.wait_with_output().expect("read its output").into() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
            if thread::panicking() {
                eprintln!("etl said\n{}", self.said.lock().unwrap());
            }
        }
    }
}
