-- Parameters: epoch, id of the sweep marker. A table whose rows are documents was truncated: documents
-- without a row are to be deleted, and what has links that dangle now is to be touched. (Links that went
-- with the rows have a marker of their own.)
WITH fence AS MATERIALIZED (
    SELECT FROM etl.term WHERE epoch = $1 FOR SHARE
), forgotten AS MATERIALIZED (
    DELETE FROM etl.outbox o USING fence WHERE o.op = 'sweep' AND o.id = $2 RETURNING o.kind, o.version
), purge AS (
    INSERT INTO etl.outbox (op, kind, version) SELECT 'purge', kind, version FROM forgotten
)
INSERT INTO etl.outbox (op, kind, row_id)
SELECT 'touch_later', 'film_work', l.film_work_id
FROM forgotten, content.person_film_work l
WHERE forgotten.kind = 'person' AND l.film_work_id IS NOT NULL
    AND NOT EXISTS (SELECT FROM content.person p WHERE p.id = l.person_id)
UNION
SELECT 'touch_later', 'film_work', l.film_work_id
FROM forgotten, content.genre_film_work l
WHERE forgotten.kind = 'genre' AND l.film_work_id IS NOT NULL
    AND NOT EXISTS (SELECT FROM content.genre g WHERE g.id = l.genre_id)
UNION
SELECT 'touch_later', 'person', l.person_id
FROM forgotten, content.person_film_work l
WHERE forgotten.kind = 'film_work' AND l.person_id IS NOT NULL
    AND NOT EXISTS (SELECT FROM content.film_work f WHERE f.id = l.film_work_id)
