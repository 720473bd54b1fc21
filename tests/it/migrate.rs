//! `etl migrate` beside the users' catalogue: what it adds, what it refuses, whom it makes wait, which
//! rights it needs, and that `--revert` takes everything back.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use std::{env, process, thread};

use postgres::{Client, NoTls};
use serde_json::json;

use crate::support::command::{Outcome, etl, run, succeed};
use crate::support::database::Database;
use crate::support::world::{Running, World};

/// As a Django application makes it and people have changed it since: other types, nullable
/// timestamps, columns that we do not know, link tables without foreign keys or even an id, a trigger,
/// a view, comments.
const DJANGO: &str = r#"
    CREATE SCHEMA content;
    CREATE TYPE content.film_role AS ENUM ('director', 'actor', 'writer', 'composer');
    CREATE DOMAIN content.grade AS numeric(4, 1) CHECK (VALUE >= 0);
    CREATE TABLE content.film_work (
        created timestamptz, modified timestamptz,
        id uuid NOT NULL, title varchar(255) NOT NULL, description text, creation_date date,
        rating content.grade, type varchar(7), certificate varchar(512), file_path varchar(100),
        tags json, title_length integer GENERATED ALWAYS AS (char_length(title)) STORED,
        CONSTRAINT film_work_pkey PRIMARY KEY (id));
    CREATE INDEX film_work_creation_date_idx ON content.film_work (creation_date);
    COMMENT ON TABLE content.film_work IS 'Films and series';
    COMMENT ON COLUMN content.film_work.rating IS 'Ours, not IMDb''s';
    CREATE TABLE content.genre (
        created timestamptz, modified timestamptz,
        id uuid PRIMARY KEY, name varchar(255) NOT NULL UNIQUE, description text);
    CREATE TABLE content.person (
        created timestamptz, modified timestamptz, id uuid PRIMARY KEY, full_name varchar(255), gender text);
    CREATE TABLE content.genre_film_work (
        id uuid PRIMARY KEY, film_work_id uuid, genre_id uuid, created timestamptz);
    CREATE TABLE content.person_film_work (
        film_work_id uuid, person_id uuid, role content.film_role, created timestamptz);
    CREATE UNIQUE INDEX film_work_person_idx
        ON content.person_film_work (film_work_id, person_id, role);
    CREATE FUNCTION content.moddatetime() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN NEW.modified := now(); RETURN NEW; END $$;
    CREATE TRIGGER film_work_modified BEFORE UPDATE ON content.film_work
        FOR EACH ROW EXECUTE FUNCTION content.moddatetime();
    CREATE VIEW content.best AS SELECT * FROM content.film_work WHERE rating > 9;"#;

/// Ten films with two people and a genre each. One film and one person have no timestamp.
const ROWS: &str = "
    INSERT INTO content.film_work (id, title, rating, created, modified, tags)
    SELECT md5('film' || n)::uuid, 'Film ' || n, n, now(), nullif(now(), now() + n * interval '0 s'), '{}'
    FROM generate_series(1, 10) AS n;
    INSERT INTO content.genre (id, name) VALUES (md5('genre')::uuid, 'Drama');
    INSERT INTO content.person (id, full_name)
    SELECT md5('person' || n)::uuid, 'Person ' || n FROM generate_series(1, 2) AS n;
    INSERT INTO content.genre_film_work (id, film_work_id, genre_id)
    SELECT md5('link' || n)::uuid, md5('film' || n)::uuid, md5('genre')::uuid FROM generate_series(1, 10) AS n;
    INSERT INTO content.person_film_work (film_work_id, person_id, role)
    SELECT md5('film' || n)::uuid, md5('person' || p)::uuid, r.role
    FROM generate_series(1, 10) AS n, (VALUES (1, 'actor'), (2, 'director')) AS r (p, role_name),
        LATERAL (SELECT role_name::content.film_role AS role) AS r2 (role_), LATERAL (SELECT role_) AS r (role);";

const TABLES: [&str; 5] = ["film_work", "genre", "person", "genre_film_work", "person_film_work"];

// What is told -------------------------------------------------------------------------------------
