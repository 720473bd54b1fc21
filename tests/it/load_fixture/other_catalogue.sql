-- The catalogue as another application may have made it: other types, no defaults for what Django
-- fills in, columns that no fixture knows.
CREATE SCHEMA content;
CREATE TYPE content.film_type AS ENUM ('movie', 'tv_show');

CREATE TABLE content.film_work (
    id uuid PRIMARY KEY,
    title varchar(12) NOT NULL,
    description text,
    creation_date timestamp,
    rating numeric(3, 1),
    type content.film_type NOT NULL,
    file_path varchar(100) NOT NULL DEFAULT 'none',
    length integer GENERATED ALWAYS AS (length(title)) STORED,
    created timestamp NOT NULL,
    modified timestamptz
);
CREATE TABLE content.genre (
    id uuid PRIMARY KEY,
    name varchar(255) NOT NULL UNIQUE,
    description text,
    created timestamptz(0) NOT NULL,
    modified timestamptz NOT NULL
);
CREATE TABLE content.person (
    modified timestamptz,
    created timestamptz,
    full_name char(40) NOT NULL,
    id uuid PRIMARY KEY
);
-- Without foreign keys, and without a unique key.
CREATE TABLE content.genre_film_work (
    id uuid PRIMARY KEY,
    created timestamptz NOT NULL,
    film_work_id uuid NOT NULL,
    genre_id uuid NOT NULL
);
CREATE TABLE content.person_film_work (
    id uuid PRIMARY KEY,
    film_work_id uuid NOT NULL REFERENCES content.film_work DEFERRABLE INITIALLY DEFERRED,
    person_id uuid NOT NULL REFERENCES content.person DEFERRABLE INITIALLY DEFERRED,
    role varchar(20),
    created date
);
