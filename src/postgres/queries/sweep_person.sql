-- Parameters: epoch, id of the sweep marker. The table `person` was truncated: films whose links dangle.
WITH fence AS MATERIALIZED (
    SELECT FROM etl.state WHERE kind = 'movies' AND epoch = $1 FOR SHARE
), forgotten AS (
    DELETE FROM etl.outbox o USING fence WHERE o.op = 'sweep' AND o.id = $2 RETURNING 1
)
INSERT INTO etl.outbox (op, row_id)
SELECT DISTINCT 'touch_later', l.film_work_id
FROM forgotten, content.person_film_work l
WHERE l.film_work_id IS NOT NULL
    AND NOT EXISTS (SELECT FROM content.person r WHERE r.id = l.person_id)
