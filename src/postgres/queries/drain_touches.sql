-- Parameters: epoch, op, after, limit. Touch and forget in one statement: neither is ever without
-- the other. Entries are forgotten by their place (they are locked, so it stays theirs): a queue that
-- has just grown from nothing has no statistics, and a join with itself would read all of it for each.
WITH fence AS MATERIALIZED (
    SELECT FROM etl.state WHERE kind = 'movies' AND epoch = $1 FOR SHARE
), entries AS MATERIALIZED (
    SELECT o.id, o.row_id, o.ctid AS place
    FROM fence, etl.outbox o
    WHERE o.op = $2 AND o.id > $3
    ORDER BY o.id
    LIMIT $4
    FOR UPDATE OF o SKIP LOCKED
), wanted AS MATERIALIZED (
    SELECT array_agg(DISTINCT row_id) AS ids FROM entries
), touched AS MATERIALIZED (
    SELECT t.id FROM wanted, etl.touch_film_works(wanted.ids) AS t (id)
), there AS MATERIALIZED (
    SELECT f.id FROM content.film_work f WHERE f.id = ANY ((SELECT ids FROM wanted)::uuid[])
), forgotten AS (
    -- SKIP LOCKED makes a locked film look like an absent one: only an absent one is forgotten.
    DELETE FROM etl.outbox o WHERE o.ctid = ANY (ARRAY(
        SELECT e.place FROM entries e
        WHERE e.row_id IN (SELECT id FROM touched) OR e.row_id NOT IN (SELECT id FROM there)))
    RETURNING 1
)
SELECT (SELECT count(*) FROM forgotten) AS forgotten, (SELECT max(id) FROM entries) AS last_id
