-- Parameters: epoch, id of the sweep marker. A link table was truncated: any row may have lost links.
WITH fence AS MATERIALIZED (
    SELECT FROM etl.term WHERE epoch = $1 FOR SHARE
), forgotten AS MATERIALIZED (
    DELETE FROM etl.outbox o USING fence WHERE o.op = 'sweep' AND o.id = $2 RETURNING o.kind
)
INSERT INTO etl.outbox (op, kind, row_id)
SELECT 'touch_later', 'film_work', f.id FROM forgotten, content.film_work f
UNION ALL
SELECT 'touch_later', 'person', p.id FROM forgotten, content.person p WHERE forgotten.kind = 'person_film_work'
