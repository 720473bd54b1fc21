-- The bookkeeping of the sync: columns of ours on the users' tables, a schema of our own, and
-- triggers that note every change in the writer's own transaction.
--
-- Safe on a large, busy catalogue: no table is rewritten (constant defaults), nothing is scanned,
-- and the locks are had within two seconds or let go again, so that nobody queues behind us.

-- The locks -----------------------------------------------------------------------------------

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

-- Columns -------------------------------------------------------------------------------------

-- now() is the same for all rows, so PostgreSQL stores it once instead of rewriting the table.
ALTER TABLE content.film_work
    ADD COLUMN touched_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN indexed_at timestamptz,
    ADD COLUMN rejected_at timestamptz;
ALTER TABLE content.film_work ALTER COLUMN touched_at SET DEFAULT clock_timestamp();
COMMENT ON COLUMN content.film_work.touched_at IS
    'When anything that goes into this film''s document last changed; strictly increasing per row. Its microseconds since 1970 are the version of the document. Kept by triggers of etl.';
COMMENT ON COLUMN content.film_work.indexed_at IS
    'The stamp: the search engine acknowledged the document of exactly this touched_at. Set it to NULL to index the film again.';
COMMENT ON COLUMN content.film_work.rejected_at IS
    'The search engine refuses the document of exactly this touched_at; see etl.rejected.';

-- What is there already counts as fanned out: all films are pending anyway.
ALTER TABLE content.person
    ADD COLUMN touched_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN fanned_out_at timestamptz DEFAULT now();
ALTER TABLE content.person
    ALTER COLUMN touched_at SET DEFAULT clock_timestamp(),
    ALTER COLUMN fanned_out_at DROP DEFAULT;
COMMENT ON COLUMN content.person.touched_at IS 'When this row last changed. Kept by triggers of etl.';
COMMENT ON COLUMN content.person.fanned_out_at IS
    'All films linked to this row have been touched since it changed. NULL: not yet.';

ALTER TABLE content.genre
    ADD COLUMN touched_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN fanned_out_at timestamptz DEFAULT now();
ALTER TABLE content.genre
    ALTER COLUMN touched_at SET DEFAULT clock_timestamp(),
    ALTER COLUMN fanned_out_at DROP DEFAULT;
COMMENT ON COLUMN content.genre.touched_at IS 'When this row last changed. Kept by triggers of etl.';
COMMENT ON COLUMN content.genre.fanned_out_at IS
    'All films linked to this row have been touched since it changed. NULL: not yet.';

-- Our tables ----------------------------------------------------------------------------------

CREATE TABLE etl.outbox (
    id bigint GENERATED ALWAYS AS IDENTITY,
    op text NOT NULL CHECK (op IN ('touch', 'touch_later', 'fan_out', 'tombstone', 'sweep')),
    kind text NOT NULL DEFAULT 'film_work',
    row_id uuid,
    version timestamptz,
    PRIMARY KEY (op, id)
);
-- A queue is empty most of the time and its dead entries lie where the next look starts.
ALTER TABLE etl.outbox SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 50000);
COMMENT ON TABLE etl.outbox IS
    'What a deleted or re-linked row cannot say of itself. Written by triggers in the writer''s transaction; an entry is deleted once it is done.';
COMMENT ON COLUMN etl.outbox.op IS
    'touch: a film to touch. touch_later: the same, one of very many. fan_out: a person or genre whose films are to be touched. tombstone: a film was deleted. sweep: a table was truncated.';
COMMENT ON COLUMN etl.outbox.kind IS 'The table that row_id is a key of, or that was truncated.';
COMMENT ON COLUMN etl.outbox.version IS
    'Of a tombstone or sweep: taken at the deletion, past all that the deleted rows had.';

CREATE TABLE etl.rejected (
    kind text NOT NULL,
    row_id uuid NOT NULL,
    version bigint NOT NULL,
    error_type text NOT NULL,
    reason text NOT NULL,
    attempts integer NOT NULL DEFAULT 1,
    first_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    retry_at timestamptz NOT NULL DEFAULT clock_timestamp() + interval '1 minute',
    PRIMARY KEY (kind, row_id)
);
CREATE INDEX rejected_retry_at ON etl.rejected (retry_at);
COMMENT ON TABLE etl.rejected IS
    'Documents that the search engine refuses as they are. Tried again when the row changes, and from time to time.';

CREATE TABLE etl.state (
    kind text PRIMARY KEY,
    epoch bigint NOT NULL DEFAULT 0,
    index_name text,
    index_uuid text,
    index_prefix text,
    cluster_uuid text,
    system_identifier text,
    timeline text,
    catalogue_oid text
);
INSERT INTO etl.state (kind) VALUES ('movies');
COMMENT ON TABLE etl.state IS
    'Which index the stamps of a kind of documents speak of, and of which database. index_name is NULL before `etl init-es` is done.';
COMMENT ON COLUMN etl.state.epoch IS
    'Moved by whoever takes the lead or resets. What was read under an older epoch can no longer be stamped or forgotten.';

-- What writers leave behind -------------------------------------------------------------------

CREATE FUNCTION etl.on_film_work_change() RETURNS trigger
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

CREATE FUNCTION etl.on_related_change() RETURNS trigger
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

CREATE FUNCTION etl.on_film_work_delete() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO etl.outbox (op, kind, row_id, version)
    SELECT 'tombstone', 'film_work', id,
        greatest(clock_timestamp(), touched_at + interval '1 microsecond')
    FROM old_rows;
    RETURN NULL;
END
$$;

-- For person and genre. Where foreign keys cascade, nothing is linked to them any more; without
-- foreign keys such links dangle.
CREATE FUNCTION etl.on_related_delete() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO etl.outbox (op, kind, row_id) SELECT 'fan_out', TG_TABLE_NAME, id FROM old_rows;
    RETURN NULL;
END
$$;

-- For both link tables; old and new ends.
CREATE FUNCTION etl.on_link_change() RETURNS trigger
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

-- For all five tables. One marker, not a tombstone a row: there may be a million, and under
-- REPEATABLE READ this trigger does not see all of them.
CREATE FUNCTION etl.on_truncate() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO etl.outbox (op, kind, version) VALUES ('sweep', TG_TABLE_NAME, clock_timestamp());
    RETURN NULL;
END
$$;

-- The BEFORE triggers have names that sort last, so that they see (and in our own transactions
-- undo) what the users' triggers write.
CREATE TRIGGER zzz_etl_touch BEFORE INSERT OR UPDATE ON content.film_work
    FOR EACH ROW EXECUTE FUNCTION etl.on_film_work_change();
CREATE TRIGGER zzz_etl_touch BEFORE INSERT OR UPDATE ON content.person
    FOR EACH ROW EXECUTE FUNCTION etl.on_related_change();
CREATE TRIGGER zzz_etl_touch BEFORE INSERT OR UPDATE ON content.genre
    FOR EACH ROW EXECUTE FUNCTION etl.on_related_change();

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['film_work', 'person', 'genre'] LOOP
        EXECUTE format(
            'CREATE TRIGGER zzz_etl_delete AFTER DELETE ON content.%I
             REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION etl.%I()',
            name, CASE name WHEN 'film_work' THEN 'on_film_work_delete' ELSE 'on_related_delete' END);
    END LOOP;
    FOREACH name IN ARRAY ARRAY['genre_film_work', 'person_film_work'] LOOP
        EXECUTE format(
            'CREATE TRIGGER zzz_etl_insert AFTER INSERT ON content.%I
             REFERENCING NEW TABLE AS new_rows
             FOR EACH STATEMENT EXECUTE FUNCTION etl.on_link_change()', name);
        EXECUTE format(
            'CREATE TRIGGER zzz_etl_update AFTER UPDATE ON content.%I
             REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
             FOR EACH STATEMENT EXECUTE FUNCTION etl.on_link_change()', name);
        EXECUTE format(
            'CREATE TRIGGER zzz_etl_delete AFTER DELETE ON content.%I
             REFERENCING OLD TABLE AS old_rows
             FOR EACH STATEMENT EXECUTE FUNCTION etl.on_link_change()', name);
    END LOOP;
    FOREACH name IN ARRAY
        ARRAY['film_work', 'person', 'genre', 'genre_film_work', 'person_film_work'] LOOP
        EXECUTE format(
            'CREATE TRIGGER zzz_etl_truncate BEFORE TRUNCATE ON content.%I
             FOR EACH STATEMENT EXECUTE FUNCTION etl.on_truncate()', name);
        -- ALWAYS: they fire under session_replication_role = replica, too.
        EXECUTE (
            SELECT string_agg(format(
                'ALTER TABLE content.%I ENABLE ALWAYS TRIGGER %I', name, tgname), ';')
            FROM pg_trigger
            WHERE tgrelid = format('content.%I', name)::regclass AND tgname LIKE 'zzz_etl_%');
    END LOOP;
END
$$;

-- What the sync writes ------------------------------------------------------------------------

-- The functions below are all that ever writes our columns on behalf of the sync. `etl.syncing`
-- tells the triggers so, and is set for the duration of the function alone. Each sets it itself:
-- as a SET clause of the function, only a superuser could create it.
--
-- Each locks the rows first, in the order of their ids, and skips those that a writer holds:
-- nobody waits for the sync, and the sync for nobody. FOR NO KEY UPDATE, because FOR UPDATE
-- conflicts with the foreign key checks of others.

-- Touches films, past the given versions if there are any. Returns those that it touched;
-- a film that is missing in the result is locked by somebody else, or absent.
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

-- Locks and returns the films that are still as they were read, under the epoch of that time.
-- FOR SHARE waits for an epoch that is just moving, and then finds nothing.
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

-- Stamps the films whose documents were acknowledged. Returns those that it stamped.
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

-- Records the films whose documents were refused for what they are. Returns those recorded.
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

-- Puts changed persons or genres (`kind`) into the outbox, and stamps these rows in the same
-- statement: never the stamp alone. Takes at most `row_limit` rows; returns how many.
--
-- The rows are locked for these few microseconds. Their films are looked up after this has been
-- committed, so a rename of meanwhile is seen by them, or makes the row pending again.
CREATE FUNCTION etl.note_fan_outs(kind text, row_limit integer) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    stamped bigint;
BEGIN
    PERFORM set_config('etl.syncing', 'on', true);
    EXECUTE format($sql$
        WITH changed AS MATERIALIZED (
            SELECT id FROM content.%1$I WHERE fanned_out_at IS NULL
            ORDER BY touched_at, id LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED
        ), noted AS (
            INSERT INTO etl.outbox (op, kind, row_id) SELECT 'fan_out', $2, id FROM changed
        )
        UPDATE content.%1$I r SET fanned_out_at = clock_timestamp() FROM changed WHERE r.id = changed.id
        $sql$, kind)
    USING row_limit, kind;
    GET DIAGNOSTICS stamped = ROW_COUNT;
    PERFORM set_config('etl.syncing', 'off', true);
    RETURN stamped;
END
$$;

-- Replaces at most `row_limit` entries of persons or genres (`kind`) in the outbox by touches of the
-- films that are linked to them. Those of a row that has more than `urgent_films` of them are not
-- urgent. Returns how many entries it replaced. Locks nothing but these.
CREATE FUNCTION etl.expand_fan_outs(
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
            SELECT o.id, o.row_id
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
        DELETE FROM etl.outbox o USING entries e WHERE o.op = 'fan_out' AND o.id = e.id
        $sql$, kind || '_id', kind || '_film_work')
    USING epoch, kind, row_limit, urgent_films;
    GET DIAGNOSTICS replaced = ROW_COUNT;
    RETURN replaced;
END
$$;

-- A reset, in chunks: forgets the stamps of the next `row_limit` films from `first_id` on, in the
-- order of their ids. Returns where the next chunk begins (NULL: nowhere), and how many films
-- still have a stamp because somebody else holds them.
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

-- The same for the rows of a related table: they count as fanned out, since all films are sent.
CREATE FUNCTION etl.reset_fan_outs(kind text, row_limit integer) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    stamped bigint;
BEGIN
    PERFORM set_config('etl.syncing', 'on', true);
    EXECUTE format($sql$
        WITH locked AS MATERIALIZED (
            SELECT id FROM content.%1$I WHERE fanned_out_at IS NULL
            ORDER BY touched_at, id LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED
        )
        UPDATE content.%1$I r SET fanned_out_at = clock_timestamp() FROM locked WHERE r.id = locked.id
        $sql$, kind)
    USING row_limit;
    GET DIAGNOSTICS stamped = ROW_COUNT;
    PERFORM set_config('etl.syncing', 'off', true);
    RETURN stamped;
END
$$;
