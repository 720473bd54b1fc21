-- The first link that has an end neither in the fixture nor in the catalogue.
SELECT s.file, s.object, s.model, s.id, '{end}' AS field, s.{end}_id AS end_id
FROM pg_temp.staged_{table} s
WHERE NOT EXISTS (SELECT FROM pg_temp.staged_{end} e WHERE e.id = s.{end}_id)
    AND NOT EXISTS (SELECT FROM content.{end} e WHERE e.id = s.{end}_id)
ORDER BY s.file, s.object
LIMIT 1
