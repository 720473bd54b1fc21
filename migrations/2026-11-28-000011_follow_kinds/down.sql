-- Back to the functions of before, which note everything whoever keeps it.

-- Writers read our tables until they commit.
SELECT etl.lock_tables(ARRAY['film_work', 'genre', 'person', 'genre_film_work', 'person_film_work']);

CREATE OR REPLACE FUNCTION etl.on_row_insert() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO etl.outbox (op, kind, row_id) SELECT 'fan_out', TG_TABLE_NAME, id FROM new_rows;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION etl.on_row_delete() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO etl.outbox (op, kind, row_id, version)
    SELECT 'tombstone', TG_TABLE_NAME, id,
        greatest(clock_timestamp(), touched_at + interval '1 microsecond')
    FROM old_rows;
    IF TG_NARGS > 0 THEN
        INSERT INTO etl.outbox (op, kind, row_id) SELECT 'fan_out', TG_TABLE_NAME, id FROM old_rows;
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION etl.on_link_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    CASE TG_OP
    WHEN 'INSERT' THEN
        INSERT INTO etl.outbox (op, kind, row_id)
        SELECT DISTINCT 'touch', 'film_work', film_work_id FROM new_rows WHERE film_work_id IS NOT NULL;
    WHEN 'DELETE' THEN
        INSERT INTO etl.outbox (op, kind, row_id)
        SELECT DISTINCT 'touch', 'film_work', film_work_id FROM old_rows WHERE film_work_id IS NOT NULL;
    WHEN 'UPDATE' THEN
        INSERT INTO etl.outbox (op, kind, row_id)
        SELECT 'touch', 'film_work', film_work_id FROM old_rows WHERE film_work_id IS NOT NULL
        UNION
        SELECT 'touch', 'film_work', film_work_id FROM new_rows WHERE film_work_id IS NOT NULL;
    END CASE;
    IF TG_TABLE_NAME <> 'person_film_work' THEN
        RETURN NULL;
    END IF;
    CASE TG_OP
    WHEN 'INSERT' THEN
        INSERT INTO etl.outbox (op, kind, row_id)
        SELECT DISTINCT 'touch', 'person', person_id FROM new_rows WHERE person_id IS NOT NULL;
    WHEN 'DELETE' THEN
        INSERT INTO etl.outbox (op, kind, row_id)
        SELECT DISTINCT 'touch', 'person', person_id FROM old_rows WHERE person_id IS NOT NULL;
    WHEN 'UPDATE' THEN
        INSERT INTO etl.outbox (op, kind, row_id)
        SELECT 'touch', 'person', person_id FROM old_rows WHERE person_id IS NOT NULL
        UNION
        SELECT 'touch', 'person', person_id FROM new_rows WHERE person_id IS NOT NULL;
    END CASE;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION etl.expand_fan_outs(
    epoch bigint, kind text, row_limit integer, urgent_rows integer
) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    link record;
    replaced bigint;
BEGIN
    SELECT * INTO STRICT link FROM (VALUES
        ('person', 'person_film_work', 'person_id', 'film_work', 'film_work_id'),
        ('genre', 'genre_film_work', 'genre_id', 'film_work', 'film_work_id'),
        ('film_work', 'person_film_work', 'film_work_id', 'person', 'person_id')
    ) AS links (source, link_table, source_id, target, target_id)
    WHERE source = $2;
    EXECUTE format($sql$
        WITH fence AS MATERIALIZED (
            SELECT FROM etl.term WHERE epoch = $1 FOR SHARE
        ), entries AS MATERIALIZED (
            SELECT o.row_id, o.ctid AS place
            FROM fence, etl.outbox o
            WHERE o.op = 'fan_out' AND o.kind = $2
            ORDER BY o.id LIMIT $3 FOR UPDATE OF o SKIP LOCKED
        ), linked AS (
            SELECT l.%3$I AS row_id, count(*) OVER (PARTITION BY l.%2$I) AS rows
            FROM (SELECT DISTINCT row_id FROM entries) AS e
            JOIN content.%1$I l ON l.%2$I = e.row_id
            WHERE l.%3$I IS NOT NULL
        ), noted AS (
            INSERT INTO etl.outbox (op, kind, row_id)
            SELECT DISTINCT CASE WHEN rows > $4 THEN 'touch_later' ELSE 'touch' END, $5, row_id
            FROM linked
        )
        DELETE FROM etl.outbox o WHERE o.ctid = ANY (ARRAY(SELECT place FROM entries))
        $sql$, link.link_table, link.source_id, link.target_id)
    USING epoch, kind, row_limit, urgent_rows, link.target;
    GET DIAGNOSTICS replaced = ROW_COUNT;
    RETURN replaced;
END
$$;

DROP FUNCTION etl.is_followed, etl.is_shown, etl.lock_tables, etl.follow_table, etl.unfollow_table,
    etl.expand_sweep;
COMMENT ON COLUMN etl.outbox.row_id IS NULL;
-- A sweep that was begun is done again in full.
UPDATE etl.outbox SET row_id = NULL WHERE op = 'sweep';
DROP TABLE etl.link, etl.followed;
