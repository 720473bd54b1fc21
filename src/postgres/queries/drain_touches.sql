-- Parameters: epoch, op, after, limit. Touch and forget in one statement: neither is ever without
-- the other.
WITH fence AS MATERIALIZED (
    SELECT FROM etl.state WHERE kind = 'movies' AND epoch = $1 FOR SHARE
), entries AS MATERIALIZED (
    SELECT o.id, o.row_id
    FROM fence, etl.outbox o
    WHERE o.op = $2 AND o.id > $3
    ORDER BY o.id
    LIMIT $4
    FOR UPDATE OF o SKIP LOCKED
), touched AS MATERIALIZED (
    SELECT t.id
    FROM (SELECT array_agg(DISTINCT row_id) AS ids FROM entries) AS e,
        etl.touch_film_works(e.ids) AS t (id)
), forgotten AS (
    -- SKIP LOCKED makes a locked film look like an absent one: only an absent one is forgotten.
    DELETE FROM etl.outbox o USING entries e
    WHERE o.op = $2 AND o.id = e.id AND (
        e.row_id IN (SELECT id FROM touched)
        OR NOT EXISTS (SELECT FROM content.film_work f WHERE f.id = e.row_id))
    RETURNING 1
)
SELECT (SELECT count(*) FROM forgotten) AS forgotten, (SELECT max(id) FROM entries) AS last_id
