-- Back to a row trigger that is called for everything.
SELECT etl.lock_tables(ARRAY['film_work', 'genre', 'person']);

DO $$
DECLARE
    argument record;
BEGIN
    FOR argument IN SELECT * FROM (VALUES
        ('film_work', 'etl.on_row_change(''fan_out'')'),
        ('person', 'etl.on_related_change()'),
        ('genre', 'etl.on_related_change()')) AS tables (name, function)
    LOOP
        EXECUTE format($sql$
            DROP TRIGGER zzz_etl_touch ON content.%1$I;
            CREATE TRIGGER zzz_etl_touch BEFORE INSERT OR UPDATE ON content.%1$I
                FOR EACH ROW EXECUTE FUNCTION %2$s;
            ALTER TABLE content.%1$I ENABLE ALWAYS TRIGGER zzz_etl_touch;
            $sql$, argument.name, argument.function);
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION etl.touch_rows(kind text, ids uuid[], past timestamptz[] DEFAULT NULL) RETURNS SETOF uuid
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('etl.syncing', 'on', true);
    RETURN QUERY EXECUTE format($sql$
        WITH wanted AS (
            SELECT w.id, max(w.past) AS past FROM unnest($1, $2) AS w (id, past) GROUP BY w.id
        ), locked AS MATERIALIZED (
            SELECT r.id FROM content.%1$I r
            WHERE r.id = ANY ($1) ORDER BY r.id FOR NO KEY UPDATE SKIP LOCKED
        )
        UPDATE content.%1$I r
        SET touched_at = greatest(
                clock_timestamp(),
                r.touched_at + interval '1 microsecond',
                wanted.past + interval '1 microsecond'),
            indexed_at = NULL,
            rejected_at = NULL
        FROM locked JOIN wanted USING (id)
        WHERE r.id = locked.id
        RETURNING r.id
        $sql$, kind)
    USING ids, past;
    PERFORM set_config('etl.syncing', 'off', true);
END
$$;

CREATE OR REPLACE FUNCTION etl.stamp_rows(
    kind text, epoch bigint, ids uuid[], touched_ats timestamptz[], modifieds timestamptz[]
) RETURNS SETOF uuid
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('etl.syncing', 'on', true);
    RETURN QUERY EXECUTE format($sql$
        WITH locked AS MATERIALIZED (
            SELECT l.id FROM etl.lock_as_read($1, $2, $3, $4, $5) AS l (id)
        ), forgiven AS (
            DELETE FROM etl.rejected r USING locked WHERE r.kind = $1 AND r.row_id = locked.id
        )
        UPDATE content.%1$I r
        SET indexed_at = greatest(clock_timestamp(), r.modified), rejected_at = NULL
        FROM locked
        WHERE r.id = locked.id
        RETURNING r.id
        $sql$, kind)
    USING kind, epoch, ids, touched_ats, modifieds;
    PERFORM set_config('etl.syncing', 'off', true);
END
$$;

DROP FUNCTION etl.begin_writing, etl.end_writing, etl.has_other_triggers;
