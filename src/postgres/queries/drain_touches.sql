-- Parameters: epoch, op, kind, after, limit. Touch and forget in one statement: neither is ever without
-- the other. Entries are forgotten by their place (they are locked, so it stays theirs): a queue that
-- has just grown from nothing has no statistics, and a join with itself would read all of it for each.
WITH fence AS MATERIALIZED (
    SELECT FROM etl.term WHERE epoch = $1 FOR SHARE
), entries AS MATERIALIZED (
    SELECT o.id, o.row_id, o.ctid AS place
    FROM fence, etl.outbox o
    WHERE o.op = $2 AND o.kind = $3 AND o.id > $4
    ORDER BY o.id
    LIMIT $5
    FOR UPDATE OF o SKIP LOCKED
), wanted AS MATERIALIZED (
    SELECT array_agg(DISTINCT row_id) AS ids FROM entries
), touched AS MATERIALIZED (
    SELECT t.id FROM wanted, etl.touch_rows($3, wanted.ids) AS t (id)
), there AS MATERIALIZED (
    SELECT r.id FROM content.{table} r WHERE r.id = ANY ((SELECT ids FROM wanted)::uuid[])
), forgotten AS (
    -- SKIP LOCKED makes a locked row look like an absent one: only an absent one is forgotten.
    DELETE FROM etl.outbox o WHERE o.ctid = ANY (ARRAY(
        SELECT e.place FROM entries e
        WHERE e.row_id IN (SELECT id FROM touched) OR e.row_id NOT IN (SELECT id FROM there)))
    RETURNING 1
)
SELECT (SELECT count(*) FROM forgotten) AS forgotten, (SELECT max(id) FROM entries) AS last_id
