-- Persons and genres are documents of their own: columns, stamps and triggers as films have them. The
-- functions that write our columns become the same ones for every kind of documents.
--
-- As safe on a large, busy catalogue as what was there before: nothing is rewritten or scanned, and the
-- locks are had within two seconds or let go again.

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

-- The kinds -----------------------------------------------------------------------------------

-- Not kept until `etl init-es` makes their indices: their stamps mean nothing before.
ALTER TABLE content.person ADD COLUMN indexed_at timestamptz, ADD COLUMN rejected_at timestamptz;
ALTER TABLE content.genre ADD COLUMN indexed_at timestamptz, ADD COLUMN rejected_at timestamptz;
COMMENT ON COLUMN content.person.touched_at IS
    'When anything that goes into this person''s document last changed; strictly increasing per row. Kept by triggers of etl.';
COMMENT ON COLUMN content.person.indexed_at IS
    'The stamp: the search engine acknowledged the document of exactly this touched_at. Set it to NULL to index the person again.';
COMMENT ON COLUMN content.person.rejected_at IS
    'The search engine refuses the document of exactly this touched_at; see etl.rejected.';
COMMENT ON COLUMN content.genre.touched_at IS
    'When anything that goes into this genre''s document last changed; strictly increasing per row. Kept by triggers of etl.';
COMMENT ON COLUMN content.genre.indexed_at IS
    'The stamp: the search engine acknowledged the document of exactly this touched_at. Set it to NULL to index the genre again.';
COMMENT ON COLUMN content.genre.rejected_at IS
    'The search engine refuses the document of exactly this touched_at; see etl.rejected.';

-- One leader, one term, one epoch for all kinds.
CREATE TABLE etl.term (only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row), epoch bigint NOT NULL);
INSERT INTO etl.term (epoch) SELECT epoch FROM etl.state;
COMMENT ON TABLE etl.term IS
    'Moved by whoever takes the lead or resets. What was read under an older epoch can no longer be stamped or forgotten.';
ALTER TABLE etl.state DROP COLUMN epoch;
UPDATE etl.state SET kind = 'film_work';
INSERT INTO etl.state (kind) VALUES ('person'), ('genre');
COMMENT ON TABLE etl.state IS
    'Which index the stamps of a table''s rows speak of, and of which database. index_name is NULL before `etl init-es` is done.';
COMMENT ON COLUMN etl.state.kind IS 'The table whose rows the documents are made of.';

-- The queues of each table apart, so that a backlog of one is not in the way of another.
ALTER TABLE etl.outbox DROP CONSTRAINT outbox_pkey, ADD PRIMARY KEY (op, kind, id);
ALTER TABLE etl.outbox DROP CONSTRAINT outbox_op_check, ADD CONSTRAINT outbox_op_check
    CHECK (op IN ('touch', 'touch_later', 'fan_out', 'tombstone', 'sweep', 'purge'));
ALTER TABLE etl.outbox ALTER COLUMN kind DROP DEFAULT;
COMMENT ON COLUMN etl.outbox.op IS
    'touch: a row to touch. touch_later: the same, one of very many. fan_out: a row whose linked rows are to be touched. tombstone: a row was deleted, its document is to follow. sweep: a table was truncated. purge: documents without a row are to be deleted.';
COMMENT ON COLUMN etl.outbox.kind IS 'The table that row_id is a key of, or that was truncated.';

-- What writers leave behind -------------------------------------------------------------------

-- For a table whose rows are documents. An argument of the trigger says that other documents show
-- its rows.
CREATE FUNCTION etl.on_row_change() RETURNS trigger
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
        VALUES ('tombstone', TG_TABLE_NAME, OLD.id, NEW.touched_at);
        IF TG_NARGS > 0 THEN
            INSERT INTO etl.outbox (op, kind, row_id)
            VALUES ('fan_out', TG_TABLE_NAME, OLD.id), ('fan_out', TG_TABLE_NAME, NEW.id);
        END IF;
    END IF;
    RETURN NEW;
END
$$;

-- For a table whose rows are documents, and whose every change is seen in others' documents, too: a
-- duty each, a stamp each.
CREATE OR REPLACE FUNCTION etl.on_related_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ours record;
BEGIN
    IF TG_OP = 'INSERT' THEN
        -- Also a new row: without foreign keys its links may have come before it.
        NEW.touched_at := clock_timestamp();
        NEW.indexed_at := NULL;
        NEW.rejected_at := NULL;
        NEW.fanned_out_at := NULL;
        RETURN NEW;
    END IF;
    IF current_setting('etl.syncing', true) = 'on' THEN
        ours := NEW;
        NEW := OLD;
        NEW.touched_at := ours.touched_at;
        NEW.indexed_at := ours.indexed_at;
        NEW.rejected_at := ours.rejected_at;
        NEW.fanned_out_at := ours.fanned_out_at;
        RETURN NEW;
    END IF;
    NEW.touched_at := greatest(clock_timestamp(), OLD.touched_at + interval '1 microsecond');
    NEW.indexed_at := NULL;
    NEW.rejected_at := NULL;
    NEW.fanned_out_at := NULL;
    IF NEW.id <> OLD.id THEN
        INSERT INTO etl.outbox (op, kind, row_id, version)
        VALUES ('tombstone', TG_TABLE_NAME, OLD.id, NEW.touched_at),
            -- What is still linked to the old id.
            ('fan_out', TG_TABLE_NAME, OLD.id, NULL);
    END IF;
    RETURN NEW;
END
$$;

-- A new row that documents show which are there already: without foreign keys its links may have come
-- before it.
CREATE FUNCTION etl.on_row_insert() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO etl.outbox (op, kind, row_id) SELECT 'fan_out', TG_TABLE_NAME, id FROM new_rows;
    RETURN NULL;
END
$$;

-- An argument of the trigger says that other documents show the rows: where foreign keys cascade,
-- nothing is linked to them any more; without foreign keys such links dangle.
CREATE FUNCTION etl.on_row_delete() RETURNS trigger
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

-- For both link tables; old and new ends. The document of a person shows its films, that of a genre
-- does not.
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

-- The names sort last, so that these triggers see (and in our own transactions undo) what the users'
-- triggers write.
DROP TRIGGER zzz_etl_touch ON content.film_work;
CREATE TRIGGER zzz_etl_touch BEFORE INSERT OR UPDATE ON content.film_work
    FOR EACH ROW EXECUTE FUNCTION etl.on_row_change('fan_out');
CREATE TRIGGER zzz_etl_insert AFTER INSERT ON content.film_work REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION etl.on_row_insert();
-- ALWAYS: they fire under session_replication_role = replica, too.
ALTER TABLE content.film_work
    ENABLE ALWAYS TRIGGER zzz_etl_touch, ENABLE ALWAYS TRIGGER zzz_etl_insert;
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['film_work', 'person', 'genre'] LOOP
        EXECUTE format(
            'DROP TRIGGER zzz_etl_delete ON content.%1$I;
             CREATE TRIGGER zzz_etl_delete AFTER DELETE ON content.%1$I REFERENCING OLD TABLE AS old_rows
                FOR EACH STATEMENT EXECUTE FUNCTION etl.on_row_delete(''fan_out'');
             ALTER TABLE content.%1$I ENABLE ALWAYS TRIGGER zzz_etl_delete', name);
    END LOOP;
END
$$;
DROP FUNCTION etl.on_film_work_change, etl.on_film_work_delete, etl.on_related_delete;

-- What the sync writes ------------------------------------------------------------------------

-- The same as before, for every kind. `kind` is the table.
DROP FUNCTION etl.touch_film_works, etl.stamp_film_works, etl.reject_film_works, etl.lock_as_read,
    etl.reset_film_works, etl.expand_fan_outs;

-- Touches rows, past the given versions if there are any. Returns those that it touched; a row that is
-- missing in the result is locked by somebody else, or absent.
CREATE FUNCTION etl.touch_rows(kind text, ids uuid[], past timestamptz[] DEFAULT NULL) RETURNS SETOF uuid
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

-- Locks and returns the rows that are still as they were read, under the epoch of that time.
-- FOR SHARE waits for an epoch that is just moving, and then finds nothing.
CREATE FUNCTION etl.lock_as_read(
    kind text, epoch bigint, ids uuid[], touched_ats timestamptz[], modifieds timestamptz[]
) RETURNS SETOF uuid
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY EXECUTE format($sql$
        WITH fence AS MATERIALIZED (
            SELECT FROM etl.term t WHERE t.epoch = $1 FOR SHARE
        )
        SELECT r.id
        FROM fence, unnest($2, $3, $4) AS a (id, touched_at, modified)
        JOIN content.%1$I r ON r.id = a.id
        WHERE r.touched_at = a.touched_at AND r.modified IS NOT DISTINCT FROM a.modified
        ORDER BY r.id
        FOR NO KEY UPDATE OF r SKIP LOCKED
        $sql$, kind)
    USING epoch, ids, touched_ats, modifieds;
END
$$;

-- Stamps the rows whose documents were acknowledged. Returns those that it stamped.
CREATE FUNCTION etl.stamp_rows(
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

-- Records the rows whose documents were refused for what they are. Returns those recorded.
CREATE FUNCTION etl.reject_rows(
    kind text, epoch bigint, ids uuid[], touched_ats timestamptz[], modifieds timestamptz[],
    versions bigint[], error_types text[], reasons text[]
) RETURNS SETOF uuid
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('etl.syncing', 'on', true);
    RETURN QUERY EXECUTE format($sql$
        WITH locked AS MATERIALIZED (
            SELECT l.id FROM etl.lock_as_read($1, $2, $3, $4, $5) AS l (id)
        ), recorded AS (
            INSERT INTO etl.rejected AS r (kind, row_id, version, error_type, reason)
            SELECT $1, a.id, a.version, a.error_type, a.reason
            FROM unnest($3, $6, $7, $8) AS a (id, version, error_type, reason)
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
        UPDATE content.%1$I r
        SET indexed_at = NULL, rejected_at = clock_timestamp()
        FROM locked
        WHERE r.id = locked.id
        RETURNING r.id
        $sql$, kind)
    USING kind, epoch, ids, touched_ats, modifieds, versions, error_types, reasons;
    PERFORM set_config('etl.syncing', 'off', true);
END
$$;

-- Makes rejected rows pending again whose pause is over, at most `row_limit`. Returns how many were due.
-- The next pause is set when the document is refused again; the hour is for a row that is locked now.
-- A row that is gone has nothing to be tried again.
CREATE FUNCTION etl.retry_rejected(kind text, row_limit integer) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    due bigint;
BEGIN
    EXECUTE format($sql$
        WITH due AS MATERIALIZED (
            SELECT row_id FROM etl.rejected WHERE kind = $1 AND retry_at <= now()
            ORDER BY retry_at LIMIT $2 FOR UPDATE SKIP LOCKED
        ), postponed AS (
            UPDATE etl.rejected r SET retry_at = clock_timestamp() + interval '1 hour'
            FROM due JOIN content.%1$I t ON t.id = due.row_id
            WHERE r.kind = $1 AND r.row_id = due.row_id
        ), gone AS (
            DELETE FROM etl.rejected r USING due
            WHERE r.kind = $1 AND r.row_id = due.row_id
                AND NOT EXISTS (SELECT FROM content.%1$I t WHERE t.id = due.row_id)
        ), touched AS MATERIALIZED (
            SELECT t.id FROM (SELECT array_agg(row_id) AS ids FROM due) AS d, etl.touch_rows($1, d.ids) AS t (id)
        )
        SELECT count(*) FROM due LEFT JOIN touched ON touched.id = due.row_id
        $sql$, kind)
    INTO due USING kind, row_limit;
    RETURN due;
END
$$;

-- Replaces at most `row_limit` entries of rows of a table (`kind`) in the outbox by touches of the rows
-- that are linked to them. Those of a row that has more than `urgent_rows` of them are not urgent.
-- Returns how many entries it replaced. Locks nothing but these.
CREATE FUNCTION etl.expand_fan_outs(
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

-- A reset, in chunks: forgets the stamps of the next `row_limit` rows from `first_id` on, in the
-- order of their ids. Returns where the next chunk begins (NULL: nowhere), and how many rows
-- still have a stamp because somebody else holds them.
CREATE FUNCTION etl.reset_rows(
    kind text, first_id uuid, row_limit integer, OUT next_id uuid, OUT locked_by_others bigint
) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('etl.syncing', 'on', true);
    EXECUTE format($sql$
        WITH chunk AS MATERIALIZED (
            SELECT r.id, r.indexed_at IS NOT NULL OR r.rejected_at IS NOT NULL AS has_stamp
            FROM content.%1$I r WHERE r.id >= $1 ORDER BY r.id LIMIT $2
        ), locked AS MATERIALIZED (
            SELECT r.id FROM content.%1$I r
            WHERE r.id IN (SELECT c.id FROM chunk c WHERE c.has_stamp)
            ORDER BY r.id FOR NO KEY UPDATE SKIP LOCKED
        ), forgotten AS (
            UPDATE content.%1$I r SET indexed_at = NULL, rejected_at = NULL
            FROM locked WHERE r.id = locked.id
        ), last AS (
            SELECT c.id FROM chunk c ORDER BY c.id DESC LIMIT 1
        )
        SELECT
            (SELECT r.id FROM content.%1$I r
             WHERE r.id > (SELECT last.id FROM last) ORDER BY r.id LIMIT 1),
            (SELECT count(*) FROM chunk c WHERE c.has_stamp) - (SELECT count(*) FROM locked)
        $sql$, kind)
    INTO next_id, locked_by_others USING first_id, row_limit;
    PERFORM set_config('etl.syncing', 'off', true);
END
$$;

-- A row of whatever table is called by what people call it: the first of these that it has.
CREATE OR REPLACE FUNCTION etl.list_rejected() RETURNS TABLE (
    kind text, id uuid, title text, version bigint, error_type text, reason text,
    attempts integer, first_at timestamptz, last_at timestamptz, retry_at timestamptz
) LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT DISTINCT r.kind FROM etl.rejected r LOOP
        RETURN QUERY EXECUTE format($sql$
            SELECT r.kind, r.row_id, coalesce(j.row ->> 'title', j.row ->> 'full_name', j.row ->> 'name'),
                r.version, r.error_type, r.reason, r.attempts, r.first_at, r.last_at,
                -- One that was changed since is sent at once.
                CASE WHEN t.rejected_at IS NULL THEN clock_timestamp() ELSE r.retry_at END
            FROM etl.rejected r
            JOIN content.%1$I t ON t.id = r.row_id
            CROSS JOIN LATERAL (SELECT to_jsonb(t) AS row) AS j
            WHERE r.kind = %1$L
            $sql$, name);
    END LOOP;
END
$$;
