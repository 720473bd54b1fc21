-- Where the rows of a fixture wait. The types are the catalogue's own, so that what is staged is
-- exactly what would be stored: cut to the scale of a numeric, refused by a varchar that is too short.
CREATE TEMP TABLE staged_{table} AS
SELECT 0 AS file, 0::bigint AS object, ''::text AS model, id, {columns}
FROM content.{table}
WITH NO DATA
