-- So that `etl start --rebuild-lost-index` makes the index that `etl init-es --mapping` has made.
ALTER TABLE etl.state ADD COLUMN mapping text;
COMMENT ON COLUMN etl.state.mapping IS
    'The definition that was given to `etl init-es --mapping`. NULL: the one that comes with the program.';

-- For people, and for `etl rejected`.
CREATE VIEW etl.rejected_documents AS
SELECT r.kind, r.row_id AS id, f.title::text AS title, r.version, r.error_type, r.reason, r.attempts,
    r.first_at, r.last_at,
    -- One that was changed since is sent at once.
    CASE WHEN f.rejected_at IS NULL THEN clock_timestamp() ELSE r.retry_at END AS retry_at
FROM etl.rejected r
JOIN content.film_work f ON r.kind = 'film_work' AND f.id = r.row_id;
COMMENT ON VIEW etl.rejected_documents IS
    'The documents that the search engine refuses as they are, with why and when they are tried again. Mend the row, and the document follows at once.';
