-- Removes what is ours and nothing else: triggers first, so that no writer meets half of it.
DO $$
BEGIN
    PERFORM set_config('lock_timeout', '2s', true);
    FOR attempt IN 1..30 LOOP
        BEGIN
            LOCK TABLE content.film_work, content.genre, content.person,
                content.genre_film_work, content.person_film_work IN ACCESS EXCLUSIVE MODE;
            RETURN;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            PERFORM pg_sleep(1 + random());
        END;
    END LOOP;
    RAISE EXCEPTION 'the catalogue''s tables were locked by others for over a minute'
        USING HINT = 'find the open transaction in pg_stat_activity, or try at a quieter time';
END
$$;

DROP FUNCTION etl.on_film_work_change, etl.on_related_change, etl.on_delete, etl.on_link_change,
    etl.on_truncate CASCADE;
DROP FUNCTION etl.touch_film_works, etl.stamp_film_works, etl.reject_film_works, etl.lock_as_read,
    etl.fan_out, etl.reset_film_works, etl.reset_fan_outs;
DROP TABLE etl.outbox, etl.rejected, etl.state;
ALTER TABLE content.film_work
    DROP COLUMN touched_at, DROP COLUMN indexed_at, DROP COLUMN rejected_at;
ALTER TABLE content.person DROP COLUMN touched_at, DROP COLUMN fanned_out_at;
ALTER TABLE content.genre DROP COLUMN touched_at, DROP COLUMN fanned_out_at;
