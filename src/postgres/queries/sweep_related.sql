-- Parameters: epoch, id of the sweep marker. The table `person` or `genre` was truncated: films
-- whose links dangle now.
WITH fence AS MATERIALIZED (
    SELECT FROM etl.state WHERE kind = 'movies' AND epoch = $1 FOR SHARE
), forgotten AS (
    DELETE FROM etl.outbox o USING fence WHERE o.op = 'sweep' AND o.id = $2 RETURNING o.kind
)
INSERT INTO etl.outbox (op, row_id)
SELECT 'touch_later', l.film_work_id
FROM forgotten, content.person_film_work l
WHERE forgotten.kind = 'person' AND l.film_work_id IS NOT NULL
    AND NOT EXISTS (SELECT FROM content.person p WHERE p.id = l.person_id)
UNION
SELECT 'touch_later', l.film_work_id
FROM forgotten, content.genre_film_work l
WHERE forgotten.kind = 'genre' AND l.film_work_id IS NOT NULL
    AND NOT EXISTS (SELECT FROM content.genre g WHERE g.id = l.genre_id)
