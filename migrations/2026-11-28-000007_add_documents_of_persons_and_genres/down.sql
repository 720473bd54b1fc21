-- Back to documents of films alone, with the functions of before. What is pending stays so; entries
-- that only documents of persons and genres need are forgotten.
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

DROP TRIGGER zzz_etl_touch ON content.film_work;
DROP TRIGGER zzz_etl_insert ON content.film_work;
DROP TRIGGER zzz_etl_delete ON content.film_work;
DROP TRIGGER zzz_etl_delete ON content.person;
DROP TRIGGER zzz_etl_delete ON content.genre;
DROP FUNCTION etl.on_row_change, etl.on_row_insert, etl.on_row_delete, etl.touch_rows, etl.lock_as_read,
    etl.stamp_rows, etl.reject_rows, etl.retry_rejected, etl.expand_fan_outs, etl.reset_rows;

-- A table that was truncated is swept again in full.
UPDATE etl.outbox SET op = 'sweep' WHERE op = 'purge' AND kind = 'film_work';
DELETE FROM etl.outbox
WHERE op = 'purge' OR (op IN ('touch', 'touch_later', 'tombstone') AND kind <> 'film_work')
    OR (op = 'fan_out' AND kind = 'film_work');
ALTER TABLE etl.outbox DROP CONSTRAINT outbox_pkey, ADD PRIMARY KEY (op, id);
ALTER TABLE etl.outbox DROP CONSTRAINT outbox_op_check, ADD CONSTRAINT outbox_op_check
    CHECK (op IN ('touch', 'touch_later', 'fan_out', 'tombstone', 'sweep'));
ALTER TABLE etl.outbox ALTER COLUMN kind SET DEFAULT 'film_work';
DELETE FROM etl.rejected WHERE kind <> 'film_work';
DELETE FROM etl.state WHERE kind <> 'film_work';
UPDATE etl.state SET kind = 'movies';
ALTER TABLE etl.state ADD COLUMN epoch bigint NOT NULL DEFAULT 0;
UPDATE etl.state SET epoch = (SELECT t.epoch FROM etl.term t);
DROP TABLE etl.term;
ALTER TABLE content.person DROP COLUMN indexed_at, DROP COLUMN rejected_at;
ALTER TABLE content.genre DROP COLUMN indexed_at, DROP COLUMN rejected_at;

CREATE OR REPLACE FUNCTION etl.on_film_work_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ours record;
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.touched_at := clock_timestamp();
        NEW.indexed_at := NULL;
        NEW.rejected_at := NULL;
        RETURN NEW;
    END IF;
    IF current_setting('etl.syncing', true) = 'on' THEN
        -- A trigger of the users' (moddatetime) has seen our stamp as an edit and may have
        -- changed their columns. Only ours are to be written.
        ours := NEW;
        NEW := OLD;
        NEW.touched_at := ours.touched_at;
        NEW.indexed_at := ours.indexed_at;
        NEW.rejected_at := ours.rejected_at;
        RETURN NEW;
    END IF;
    -- No comparison of old and new: it fails on json, and generated columns are not there yet.
    NEW.touched_at := greatest(clock_timestamp(), OLD.touched_at + interval '1 microsecond');
    NEW.indexed_at := NULL;
    NEW.rejected_at := NULL;
    IF NEW.id <> OLD.id THEN
        INSERT INTO etl.outbox (op, kind, row_id, version)
        VALUES ('tombstone', 'film_work', OLD.id, NEW.touched_at);
    END IF;
    RETURN NEW;
END
$$;

CREATE OR REPLACE FUNCTION etl.on_related_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ours record;
BEGIN
    IF TG_OP = 'INSERT' THEN
        -- Also a new row: without foreign keys its links may have come before it.
        NEW.touched_at := clock_timestamp();
        NEW.fanned_out_at := NULL;
        RETURN NEW;
    END IF;
    IF current_setting('etl.syncing', true) = 'on' THEN
        ours := NEW;
        NEW := OLD;
        NEW.touched_at := ours.touched_at;
        NEW.fanned_out_at := ours.fanned_out_at;
        RETURN NEW;
    END IF;
    NEW.touched_at := greatest(clock_timestamp(), OLD.touched_at + interval '1 microsecond');
    NEW.fanned_out_at := NULL;
    IF NEW.id <> OLD.id THEN
        -- What is still linked to the old id.
        INSERT INTO etl.outbox (op, kind, row_id) VALUES ('fan_out', TG_TABLE_NAME, OLD.id);
    END IF;
    RETURN NEW;
END
$$;

CREATE OR REPLACE FUNCTION etl.on_film_work_delete() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO etl.outbox (op, kind, row_id, version)
    SELECT 'tombstone', 'film_work', id,
        greatest(clock_timestamp(), touched_at + interval '1 microsecond')
    FROM old_rows;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION etl.on_related_delete() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO etl.outbox (op, kind, row_id) SELECT 'fan_out', TG_TABLE_NAME, id FROM old_rows;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION etl.on_link_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    CASE TG_OP
    WHEN 'INSERT' THEN
        INSERT INTO etl.outbox (op, row_id)
        SELECT DISTINCT 'touch', film_work_id FROM new_rows WHERE film_work_id IS NOT NULL;
    WHEN 'DELETE' THEN
        INSERT INTO etl.outbox (op, row_id)
        SELECT DISTINCT 'touch', film_work_id FROM old_rows WHERE film_work_id IS NOT NULL;
    WHEN 'UPDATE' THEN
        INSERT INTO etl.outbox (op, row_id)
        SELECT 'touch', film_work_id FROM old_rows WHERE film_work_id IS NOT NULL
        UNION
        SELECT 'touch', film_work_id FROM new_rows WHERE film_work_id IS NOT NULL;
    END CASE;
    RETURN NULL;
END
$$;

CREATE TRIGGER zzz_etl_touch BEFORE INSERT OR UPDATE ON content.film_work
    FOR EACH ROW EXECUTE FUNCTION etl.on_film_work_change();
CREATE TRIGGER zzz_etl_delete AFTER DELETE ON content.film_work REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION etl.on_film_work_delete();
CREATE TRIGGER zzz_etl_delete AFTER DELETE ON content.person REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION etl.on_related_delete();
CREATE TRIGGER zzz_etl_delete AFTER DELETE ON content.genre REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION etl.on_related_delete();
ALTER TABLE content.film_work
    ENABLE ALWAYS TRIGGER zzz_etl_touch, ENABLE ALWAYS TRIGGER zzz_etl_delete;
ALTER TABLE content.person ENABLE ALWAYS TRIGGER zzz_etl_delete;
ALTER TABLE content.genre ENABLE ALWAYS TRIGGER zzz_etl_delete;

CREATE FUNCTION etl.touch_film_works(ids uuid[], past timestamptz[] DEFAULT NULL) RETURNS SETOF uuid
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM set_config('etl.syncing', 'on', true);
    RETURN QUERY
        WITH wanted AS (
            SELECT w.id, max(w.past) AS past FROM unnest($1, $2) AS w (id, past) GROUP BY w.id
        ), locked AS MATERIALIZED (
            SELECT f.id FROM content.film_work f
            WHERE f.id = ANY ($1) ORDER BY f.id FOR NO KEY UPDATE SKIP LOCKED
        )
        UPDATE content.film_work f
        SET touched_at = greatest(
                clock_timestamp(),
                f.touched_at + interval '1 microsecond',
                wanted.past + interval '1 microsecond'),
            indexed_at = NULL,
            rejected_at = NULL
        FROM locked JOIN wanted USING (id)
        WHERE f.id = locked.id
        RETURNING f.id;
    PERFORM set_config('etl.syncing', 'off', true);
END
$$;

CREATE FUNCTION etl.lock_as_read(
    epoch bigint, ids uuid[], touched_ats timestamptz[], modifieds timestamptz[]
) RETURNS SETOF uuid
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    WITH fence AS MATERIALIZED (
        SELECT FROM etl.state s WHERE s.kind = 'movies' AND s.epoch = $1 FOR SHARE
    )
    SELECT f.id
    FROM fence, unnest($2, $3, $4) AS r (id, touched_at, modified)
    JOIN content.film_work f ON f.id = r.id
    WHERE f.touched_at = r.touched_at AND f.modified IS NOT DISTINCT FROM r.modified
    ORDER BY f.id
    FOR NO KEY UPDATE OF f SKIP LOCKED
$$;

CREATE FUNCTION etl.stamp_film_works(
    epoch bigint, ids uuid[], touched_ats timestamptz[], modifieds timestamptz[]
) RETURNS SETOF uuid
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM set_config('etl.syncing', 'on', true);
    RETURN QUERY
        WITH locked AS MATERIALIZED (
            SELECT l.id FROM etl.lock_as_read($1, $2, $3, $4) AS l (id)
        ), forgiven AS (
            DELETE FROM etl.rejected r USING locked
            WHERE r.kind = 'film_work' AND r.row_id = locked.id
        )
        UPDATE content.film_work f
        SET indexed_at = greatest(clock_timestamp(), f.modified), rejected_at = NULL
        FROM locked
        WHERE f.id = locked.id
        RETURNING f.id;
    PERFORM set_config('etl.syncing', 'off', true);
END
$$;

CREATE FUNCTION etl.reject_film_works(
    epoch bigint, ids uuid[], touched_ats timestamptz[], modifieds timestamptz[],
    versions bigint[], error_types text[], reasons text[]
) RETURNS SETOF uuid
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM set_config('etl.syncing', 'on', true);
    RETURN QUERY
        WITH locked AS MATERIALIZED (
            SELECT l.id FROM etl.lock_as_read($1, $2, $3, $4) AS l (id)
        ), recorded AS (
            INSERT INTO etl.rejected AS r (kind, row_id, version, error_type, reason)
            SELECT 'film_work', a.id, a.version, a.error_type, a.reason
            FROM unnest($2, $5, $6, $7) AS a (id, version, error_type, reason)
            JOIN locked USING (id)
            ON CONFLICT (kind, row_id) DO UPDATE SET
                version = excluded.version,
                error_type = excluded.error_type,
                reason = excluded.reason,
                attempts = r.attempts + 1,
                last_at = excluded.last_at,
                -- 1 minute, 2, 4 … up to about 17 hours.
                retry_at = excluded.last_at + interval '1 minute' * 2 ^ least(r.attempts, 10)
        )
        UPDATE content.film_work f
        SET indexed_at = NULL, rejected_at = clock_timestamp()
        FROM locked
        WHERE f.id = locked.id
        RETURNING f.id;
    PERFORM set_config('etl.syncing', 'off', true);
END
$$;

CREATE FUNCTION etl.reset_film_works(
    first_id uuid, row_limit integer, OUT next_id uuid, OUT locked_by_others bigint
) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM set_config('etl.syncing', 'on', true);
    WITH chunk AS MATERIALIZED (
        SELECT f.id, f.indexed_at IS NOT NULL OR f.rejected_at IS NOT NULL AS has_stamp
        FROM content.film_work f WHERE f.id >= $1 ORDER BY f.id LIMIT $2
    ), locked AS MATERIALIZED (
        SELECT f.id FROM content.film_work f
        WHERE f.id IN (SELECT c.id FROM chunk c WHERE c.has_stamp)
        ORDER BY f.id FOR NO KEY UPDATE SKIP LOCKED
    ), forgotten AS (
        UPDATE content.film_work f SET indexed_at = NULL, rejected_at = NULL
        FROM locked WHERE f.id = locked.id
    ), last AS (
        SELECT c.id FROM chunk c ORDER BY c.id DESC LIMIT 1
    )
    SELECT
        (SELECT f.id FROM content.film_work f
         WHERE f.id > (SELECT last.id FROM last) ORDER BY f.id LIMIT 1),
        (SELECT count(*) FROM chunk c WHERE c.has_stamp) - (SELECT count(*) FROM locked)
    INTO next_id, locked_by_others;
    PERFORM set_config('etl.syncing', 'off', true);
END
$$;

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

CREATE OR REPLACE FUNCTION etl.list_rejected() RETURNS TABLE (
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
