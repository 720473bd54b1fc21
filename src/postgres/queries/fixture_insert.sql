-- In the order of their ids, as they are locked.
WITH absent AS MATERIALIZED (
    SELECT s.*
    FROM pg_temp.staged_{table} s
    WHERE NOT EXISTS (SELECT FROM content.{table} t WHERE t.id = s.id)
), inserted AS (
    INSERT INTO content.{table} (id, {columns})
    SELECT s.id, {fresh}
    FROM absent s
    ORDER BY s.id
    {on_conflict}
    RETURNING 1
)
SELECT (SELECT count(*) FROM absent) AS absent, (SELECT count(*) FROM inserted) AS inserted
