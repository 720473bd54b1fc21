//! A PostgreSQL database for one test alone.

use std::{env, process};

use postgres::{Client, NoTls};

use super::command;

/// A database of its own. Dropped with the value.
#[derive(Debug)]
pub struct Database {
    server_url: String,
    name: String,
}

impl Database {
    /// Creates an empty database on the server of `DATABASE_URL`. `name` is the test's, so that a
    /// leftover can be told.
    pub fn new(name: &str) -> Self {
        Self::on_server(server_url(), name)
    }

    /// Creates an empty database on this server.
    pub fn on_server(server_url: String, name: &str) -> Self {
        let name = format!("etl_{name}_{}", process::id());
        // Longer names are cut by PostgreSQL, and could meet.
        assert!(name.len() <= 63, "the name `{name}` is too long");
        let mut server = connect(&server_url);
        for sql in ["DROP DATABASE IF EXISTS", "CREATE DATABASE"] {
            server.execute(&format!("{sql} {name}"), &[]).expect("create a database");
        }
        Self { server_url, name }
    }

    /// Says that the database is on another server now: a standby of the former one.
    #[allow(dead_code, reason = "the torture test has one server")]
    pub fn move_to(&mut self, server_url: String) {
        self.server_url = server_url;
    }

    /// The URL of the database.
    pub fn url(&self) -> String {
        url_of(&self.server_url, &self.name)
    }

    /// A session of the test's own.
    pub fn client(&self) -> Client {
        connect(&self.url())
    }

    /// Runs `etl migrate`.
    #[track_caller]
    pub fn migrate(&self) {
        command::succeed(&["migrate", "--database-url", &self.url()]);
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // A panic in here would hide why the test failed.
        let dropped = Client::connect(&self.server_url, NoTls).and_then(|mut server| {
            server.execute(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name), &[])
        });
        if let Err(err) = dropped {
            eprintln!("could not drop the database `{}`: {err}", self.name);
        }
    }
}

fn server_url() -> String {
    env::var("DATABASE_URL")
        .expect("DATABASE_URL is not set: run `make test`, which starts the servers")
}

fn connect(url: &str) -> Client {
    Client::connect(url, NoTls).unwrap_or_else(|err| {
        panic!("could not connect to {url}: {err}: run `make test`, which starts the servers")
    })
}

/// Replaces the database in `postgres://user@host:port/database?settings`.
fn url_of(server_url: &str, name: &str) -> String {
    let (scheme, rest) = server_url.split_once("://").expect("DATABASE_URL is a URL");
    let host = &rest[..rest.find(['/', '?']).unwrap_or(rest.len())];
    let settings = &rest[rest.find('?').unwrap_or(rest.len())..];
    format!("{scheme}://{host}/{name}{settings}")
}
