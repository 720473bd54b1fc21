-- Parameters: epoch, kind, ids of outbox entries (tombstones of rows that are back).
WITH fence AS MATERIALIZED (
    SELECT FROM etl.term WHERE epoch = $1 FOR SHARE
), entries AS MATERIALIZED (
    SELECT o.id, o.row_id, o.version, o.ctid AS place
    FROM fence, etl.outbox o
    WHERE o.op = 'tombstone' AND o.kind = $2 AND o.id = ANY ($3)
    FOR UPDATE OF o SKIP LOCKED
), touched AS MATERIALIZED (
    SELECT t.id
    FROM (SELECT array_agg(row_id) AS ids, array_agg(version) AS past FROM entries) AS e,
        etl.touch_rows($2, e.ids, e.past) AS t (id)
), forgotten AS (
    DELETE FROM etl.outbox o WHERE o.ctid = ANY (ARRAY(
        SELECT e.place FROM entries e WHERE e.row_id IN (SELECT id FROM touched)))
    RETURNING 1
)
SELECT count(*) AS entries FROM forgotten
