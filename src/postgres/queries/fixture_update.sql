-- Only rows that differ: an UPDATE that changes nothing would send the film to the engine, too.
-- They are locked first, in the order of their ids.
WITH changed AS MATERIALIZED (
    SELECT t.id
    FROM content.{table} t
    JOIN pg_temp.staged_{table} s ON s.id = t.id
    WHERE ROW({current}) IS DISTINCT FROM ROW({given})
    ORDER BY t.id
    FOR NO KEY UPDATE OF t
)
UPDATE content.{table} t
SET ({columns}) = ROW({given})
FROM changed
JOIN pg_temp.staged_{table} s ON s.id = changed.id
WHERE t.id = changed.id
