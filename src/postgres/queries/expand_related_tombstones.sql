-- Parameters: epoch, limit. What a deleted person or genre was linked to, and still is.
WITH fence AS MATERIALIZED (
    SELECT FROM etl.state WHERE kind = 'movies' AND epoch = $1 FOR SHARE
), entries AS MATERIALIZED (
    SELECT o.id, o.kind, o.row_id
    FROM fence, etl.outbox o
    WHERE o.op = 'tombstone' AND o.kind IN ('person', 'genre')
    ORDER BY o.id
    LIMIT $2
    FOR UPDATE OF o SKIP LOCKED
), noted AS (
    INSERT INTO etl.outbox (op, row_id)
    SELECT 'fan_out', l.film_work_id
    FROM entries e JOIN content.person_film_work l ON l.person_id = e.row_id
    WHERE e.kind = 'person' AND l.film_work_id IS NOT NULL
    UNION
    SELECT 'fan_out', l.film_work_id
    FROM entries e JOIN content.genre_film_work l ON l.genre_id = e.row_id
    WHERE e.kind = 'genre' AND l.film_work_id IS NOT NULL
), forgotten AS (
    DELETE FROM etl.outbox o USING entries e WHERE o.op = 'tombstone' AND o.id = e.id RETURNING 1
)
SELECT count(*) AS entries FROM forgotten
