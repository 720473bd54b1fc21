-- Makes a catalogue to measure with, in place of what is there:
--   psql "$DATABASE_URL" -v films=200000 -f dev/catalogue.sql
-- Each film has 5 people, 2 genres and about 1.2 KB of document. The same every time.
\set ON_ERROR_STOP on
\set QUIET on
SET client_min_messages = warning;
BEGIN;
TRUNCATE content.film_work, content.person, content.genre, content.genre_film_work, content.person_film_work;

CREATE FUNCTION pg_temp.uuid_of(kind text, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE
AS $$ SELECT md5(kind || n)::uuid $$;
-- The n-th of some words, hashed so that neighbours differ.
CREATE FUNCTION pg_temp.word(seed bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT (ARRAY['night', 'river', 'house', 'city', 'king', 'winter', 'stranger', 'letter', 'garden', 'train',
        'star', 'island', 'brother', 'silence', 'market', 'soldier', 'dream', 'mirror', 'harbour', 'road',
        'ночь', 'дорога', 'город', 'зима', 'письмо', 'остров', 'брат', 'тишина', 'поезд', 'сон', 'meets',
        'follows', 'loses', 'remembers', 'betrays', 'saves', 'forgets', 'returns', 'through', 'beyond'])
        [1 + abs(hashint8(seed)::bigint) % 40]
$$;

INSERT INTO content.genre (id, name)
SELECT pg_temp.uuid_of('genre', n), 'Genre ' || n FROM generate_series(1, 26) AS n;

INSERT INTO content.person (id, full_name)
SELECT pg_temp.uuid_of('person', n), initcap(pg_temp.word(n * 7)) || ' ' || initcap(pg_temp.word(n * 11)) || ' ' || n
FROM generate_series(1, greatest(:films / 2, 10)) AS n;

INSERT INTO content.film_work (id, title, description, creation_date, rating)
SELECT pg_temp.uuid_of('film', n),
    initcap(pg_temp.word(n)) || ' ' || pg_temp.word(n + 1) || ' ' || pg_temp.word(n + 2) || ' ' || n,
    (SELECT string_agg(pg_temp.word(n * 31 + w), ' ') FROM generate_series(1, 45) AS w),
    date '1950-01-01' + (n % 27000)::integer,
    (n % 100) / 10.0
FROM generate_series(1, :films) AS n;

INSERT INTO content.genre_film_work (id, genre_id, film_work_id)
SELECT pg_temp.uuid_of('genre link ' || g, n), pg_temp.uuid_of('genre', 1 + (n * (g + 1) + g * 13) % 26),
    pg_temp.uuid_of('film', n)
FROM generate_series(1, :films) AS n, generate_series(0, 1) AS g
ON CONFLICT DO NOTHING;

INSERT INTO content.person_film_work (id, person_id, film_work_id, role)
SELECT pg_temp.uuid_of('person link ' || p, n),
    pg_temp.uuid_of('person', 1 + (n * 5 + p * 17) % greatest(:films / 2, 10)), pg_temp.uuid_of('film', n),
    (ARRAY['director', 'writer', 'actor', 'actor', 'actor'])[p]
FROM generate_series(1, :films) AS n, generate_series(1, 5) AS p
ON CONFLICT DO NOTHING;
COMMIT;
VACUUM ANALYZE;
