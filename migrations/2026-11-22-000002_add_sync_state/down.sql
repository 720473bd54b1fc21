-- Removes what is ours and nothing else: triggers first, so that no writer meets half of it.
DO $$
DECLARE
    names text[] := ARRAY['film_work', 'genre', 'person', 'genre_film_work', 'person_film_work'];
    name text;
BEGIN
    FOR attempt IN 1..30 LOOP
        BEGIN
            -- Holding nothing, we can wait until autovacuum gives way, which takes it a second.
            PERFORM set_config('lock_timeout', '2s', true);
            FOREACH name IN ARRAY names LOOP
                EXECUTE format('LOCK TABLE content.%I IN ACCESS EXCLUSIVE MODE', name);
                -- Holding some, we let go before PostgreSQL looks for a deadlock, which it does
                -- after a second and might end the writer for.
                PERFORM set_config('lock_timeout', '100ms', true);
            END LOOP;
            PERFORM set_config('lock_timeout', '2s', true);
            RETURN;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            -- The failed block has given back what it had locked. Let those go on that wait, and
            -- begin with the table that was not to be had.
            names := name || array_remove(names, name);
            PERFORM pg_sleep(1 + random());
        END;
    END LOOP;
    RAISE EXCEPTION 'the catalogue''s tables were locked by others for over a minute'
        USING HINT = 'find the open transaction in pg_stat_activity, or try at a quieter time';
END
$$;

DROP FUNCTION etl.on_film_work_change, etl.on_related_change, etl.on_film_work_delete, etl.on_related_delete, etl.on_link_change,
    etl.on_truncate CASCADE;
DROP FUNCTION etl.touch_film_works, etl.stamp_film_works, etl.reject_film_works, etl.lock_as_read,
    etl.note_fan_outs, etl.expand_fan_outs, etl.reset_film_works, etl.reset_fan_outs;
DROP TABLE etl.outbox, etl.rejected, etl.state;
ALTER TABLE content.film_work
    DROP COLUMN touched_at, DROP COLUMN indexed_at, DROP COLUMN rejected_at;
ALTER TABLE content.person DROP COLUMN touched_at, DROP COLUMN fanned_out_at;
ALTER TABLE content.genre DROP COLUMN touched_at, DROP COLUMN fanned_out_at;
