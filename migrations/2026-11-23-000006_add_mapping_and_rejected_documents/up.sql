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

-- Replaces at most `row_limit` entries of persons or genres (`kind`) in the outbox by touches of the
-- films that are linked to them. Those of a row that has more than `urgent_films` of them are not
-- urgent. Returns how many entries it replaced. Locks nothing but these.
CREATE OR REPLACE FUNCTION etl.expand_fan_outs(
    epoch bigint, kind text, row_limit integer, urgent_films integer
) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    replaced bigint;
BEGIN
    EXECUTE format($sql$
        WITH fence AS MATERIALIZED (
            SELECT FROM etl.state WHERE kind = 'movies' AND epoch = $1 FOR SHARE
        ), entries AS MATERIALIZED (
            SELECT o.row_id, o.ctid AS place
            FROM fence, etl.outbox o
            WHERE o.op = 'fan_out' AND o.kind = $2
            ORDER BY o.id LIMIT $3 FOR UPDATE OF o SKIP LOCKED
        ), linked AS (
            SELECT l.film_work_id, count(*) OVER (PARTITION BY l.%1$I) AS films
            FROM (SELECT DISTINCT row_id FROM entries) AS e
            JOIN content.%2$I l ON l.%1$I = e.row_id
            WHERE l.film_work_id IS NOT NULL
        ), noted AS (
            INSERT INTO etl.outbox (op, row_id)
            SELECT DISTINCT CASE WHEN films > $4 THEN 'touch_later' ELSE 'touch' END, film_work_id
            FROM linked
        )
        DELETE FROM etl.outbox o WHERE o.ctid = ANY (ARRAY(SELECT place FROM entries))
        $sql$, kind || '_id', kind || '_film_work')
    USING epoch, kind, row_limit, urgent_films;
    GET DIAGNOSTICS replaced = ROW_COUNT;
    RETURN replaced;
END
$$;
