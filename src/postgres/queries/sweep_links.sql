-- Parameters: epoch, id of the sweep marker. A link table was truncated: any film may have lost links.
WITH fence AS MATERIALIZED (
    SELECT FROM etl.state WHERE kind = 'movies' AND epoch = $1 FOR SHARE
), forgotten AS (
    DELETE FROM etl.outbox o USING fence WHERE o.op = 'sweep' AND o.id = $2 RETURNING 1
)
INSERT INTO etl.outbox (op, row_id)
SELECT 'touch_later', f.id FROM forgotten, content.film_work f
