-- So that `etl start --rebuild-lost-index` makes the index that `etl init-es --mapping` has made.
ALTER TABLE etl.state ADD COLUMN mapping text;
COMMENT ON COLUMN etl.state.mapping IS
    'The definition that was given to `etl init-es --mapping`. NULL: the one that comes with the program.';

-- A function in a language of its own, because a view that named columns of the users' would keep them
-- from altering these.
CREATE FUNCTION etl.list_rejected() RETURNS TABLE (
    kind text, id uuid, title text, version bigint, error_type text, reason text,
    attempts integer, first_at timestamptz, last_at timestamptz, retry_at timestamptz
) LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY
        SELECT r.kind, r.row_id, f.title::text, r.version, r.error_type, r.reason, r.attempts,
            r.first_at, r.last_at,
            -- One that was changed since is sent at once.
            CASE WHEN f.rejected_at IS NULL THEN clock_timestamp() ELSE r.retry_at END
        FROM etl.rejected r
        JOIN content.film_work f ON f.id = r.row_id
        WHERE r.kind = 'film_work';
END
$$;

-- For people, and for `etl rejected`.
CREATE VIEW etl.rejected_documents AS SELECT * FROM etl.list_rejected();
COMMENT ON VIEW etl.rejected_documents IS
    'The documents that the search engine refuses as they are, with why and when they are tried again. Mend the row, and the document follows at once.';
