-- What concerns only documents that nobody keeps costs writers a look, and no entry in the outbox.

-- The locks --------------------------------------------------------------------------------------

-- Locks tables of the catalogue, for a migration: within two seconds or let go again, so that nobody queues
-- behind us.
CREATE FUNCTION etl.lock_tables(names text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
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

-- Which kinds are followed ----------------------------------------------------------------------

-- Not in etl.state: writers read this until they commit, so whoever alters it has to wait for them.
CREATE TABLE etl.followed (kind text PRIMARY KEY);
INSERT INTO etl.followed (kind) SELECT kind FROM etl.state WHERE index_name IS NOT NULL;
COMMENT ON TABLE etl.followed IS
    'The tables whose documents are kept: writers note what concerns them. Before there is an index of them, all transactions are waited for that may have looked here before.';

-- Whose documents show whose rows.
CREATE TABLE etl.link (
    source text,
    link_table text,
    source_id text NOT NULL,
    target text,
    target_id text NOT NULL,
    PRIMARY KEY (source, target, link_table)
);
INSERT INTO etl.link (source, link_table, source_id, target, target_id) VALUES
    ('person', 'person_film_work', 'person_id', 'film_work', 'film_work_id'),
    ('genre', 'genre_film_work', 'genre_id', 'film_work', 'film_work_id'),
    ('film_work', 'person_film_work', 'film_work_id', 'person', 'person_id');
COMMENT ON TABLE etl.link IS
    'Whose documents show whose rows: those of `target` the rows of `source`, by way of the rows of `link_table`.';

-- Whether the documents of a table's rows are followed, for a trigger AFTER a statement: what the statement
-- has written gave the transaction its number, by which `etl init-es` knows that it has looked before.
--
-- A transaction that sees what was there at its beginning may look later than it was given its number, and
-- still see what was there before. So it does not look.
CREATE FUNCTION etl.is_followed(kind text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN current_setting('transaction_isolation') IN ('repeatable read', 'serializable')
        OR EXISTS (SELECT FROM etl.followed f WHERE f.kind = $1);
END
$$;

-- The same for documents that show the rows of a table.
CREATE FUNCTION etl.is_shown(kind text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN current_setting('transaction_isolation') IN ('repeatable read', 'serializable')
        OR EXISTS (
            SELECT FROM etl.link l JOIN etl.followed f ON f.kind = l.target WHERE l.source = $1);
END
$$;

-- What writers leave behind ---------------------------------------------------------------------

-- A new row that documents show which are there already: without foreign keys its links may have come
-- before it.
CREATE OR REPLACE FUNCTION etl.on_row_insert() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF etl.is_shown(TG_TABLE_NAME) THEN
        INSERT INTO etl.outbox (op, kind, row_id) SELECT 'fan_out', TG_TABLE_NAME, id FROM new_rows;
    END IF;
    RETURN NULL;
END
$$;

-- An argument of the trigger says that other documents show the rows: where foreign keys cascade,
-- nothing is linked to them any more; without foreign keys such links dangle.
CREATE OR REPLACE FUNCTION etl.on_row_delete() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF etl.is_followed(TG_TABLE_NAME) THEN
        INSERT INTO etl.outbox (op, kind, row_id, version)
        SELECT 'tombstone', TG_TABLE_NAME, id,
            greatest(clock_timestamp(), touched_at + interval '1 microsecond')
        FROM old_rows;
    END IF;
    IF TG_NARGS > 0 AND etl.is_shown(TG_TABLE_NAME) THEN
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
    IF etl.is_followed('film_work') THEN
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
    END IF;
    IF TG_TABLE_NAME = 'person_film_work' AND etl.is_followed('person') THEN
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
    END IF;
    RETURN NULL;
END
$$;

-- What the sync writes --------------------------------------------------------------------------

-- Replaces at most `row_limit` entries of rows of a table (`kind`) in the outbox by touches of the rows
-- that are linked to them and followed. Those of a row that has more than `urgent_rows` of them are not
-- urgent. Returns how many entries it replaced. Locks nothing but these.
CREATE OR REPLACE FUNCTION etl.expand_fan_outs(
    epoch bigint, kind text, row_limit integer, urgent_rows integer
) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    linked text;
    replaced bigint;
BEGIN
    SELECT string_agg(format($sql$
            SELECT %1$L AS target, l.%2$I AS row_id, count(*) OVER (PARTITION BY l.%3$I) AS rows
            FROM changed JOIN content.%4$I l ON l.%3$I = changed.row_id
            WHERE l.%2$I IS NOT NULL
            $sql$, l.target, l.target_id, l.source_id, l.link_table), ' UNION ALL ')
    INTO linked
    FROM etl.link l JOIN etl.followed f ON f.kind = l.target
    WHERE l.source = $2;
    EXECUTE format($sql$
        WITH fence AS MATERIALIZED (
            SELECT FROM etl.term WHERE epoch = $1 FOR SHARE
        ), entries AS MATERIALIZED (
            SELECT o.row_id, o.ctid AS place
            FROM fence, etl.outbox o
            WHERE o.op = 'fan_out' AND o.kind = $2
            ORDER BY o.id LIMIT $3 FOR UPDATE OF o SKIP LOCKED
        ), changed AS (
            SELECT DISTINCT row_id FROM entries
        ), noted AS (
            INSERT INTO etl.outbox (op, kind, row_id)
            SELECT DISTINCT CASE WHEN rows > $4 THEN 'touch_later' ELSE 'touch' END, target, row_id
            FROM (%s) AS linked
        )
        DELETE FROM etl.outbox o WHERE o.ctid = ANY (ARRAY(SELECT place FROM entries))
        $sql$, coalesce(linked, 'SELECT $2 AS target, row_id, 0 AS rows FROM changed WHERE false'))
    USING epoch, kind, row_limit, urgent_rows;
    GET DIAGNOSTICS replaced = ROW_COUNT;
    RETURN replaced;
END
$$;

-- A table was truncated. Takes its marker (`entry`) a step further, and forgets it at the end: notes at the first
-- step that documents without a row are to be deleted, and at each touches of some rows that showed the lost ones, in
-- the order of their ids. Of a link table these are all rows, for nothing says any more which were linked; of another,
-- those that have links that dangle now. (Links that went with the rows have a marker of their own.)
--
-- A step looks at about `row_limit` rows, and is taken when the touches of the last one are done: so neither a
-- statement nor the outbox grows with the catalogue. Where the next one begins is in the marker. Returns how many
-- rows were looked at, one at least if a step was taken.
CREATE FUNCTION etl.expand_sweep(epoch bigint, entry bigint, row_limit integer) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    sweep record;
    targets text[];
    rows text;
    shown text;
    looked_at bigint := 0;
    last_id uuid;
BEGIN
    PERFORM FROM etl.term t WHERE t.epoch = $1 FOR SHARE;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    SELECT o.kind, o.row_id AS place, o.version INTO sweep
    FROM etl.outbox o WHERE o.op = 'sweep' AND o.id = entry FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    SELECT array_agg(DISTINCT l.target),
        string_agg(DISTINCT format($sql$
            (SELECT %1$L AS kind, r.id FROM content.%1$I r
             WHERE $1 IS NULL OR r.id > $1 ORDER BY r.id LIMIT $2)
            $sql$, l.target), ' UNION ALL '),
        string_agg(CASE
            WHEN l.link_table = sweep.kind THEN format('SELECT kind, id FROM chunk WHERE kind = %L', l.target)
            ELSE format($sql$
                SELECT chunk.kind, chunk.id FROM chunk JOIN content.%1$I l ON l.%2$I = chunk.id
                WHERE chunk.kind = %3$L AND NOT EXISTS (SELECT FROM content.%4$I s WHERE s.id = l.%5$I)
                $sql$, l.link_table, l.target_id, l.target, l.source, l.source_id)
            END, ' UNION ')
    INTO targets, rows, shown
    FROM etl.link l JOIN etl.followed f ON f.kind = l.target
    WHERE sweep.kind IN (l.link_table, l.source);
    IF sweep.place IS NOT NULL
        AND EXISTS (SELECT FROM etl.outbox o WHERE o.op = 'touch_later' AND o.kind = ANY (targets)) THEN
        RETURN 0;
    END IF;
    IF sweep.place IS NULL AND EXISTS (SELECT FROM etl.followed f WHERE f.kind = sweep.kind) THEN
        INSERT INTO etl.outbox (op, kind, version) VALUES ('purge', sweep.kind, sweep.version);
    END IF;
    IF rows IS NOT NULL THEN
        -- An id may be in two tables.
        EXECUTE format($sql$
            WITH chunk AS MATERIALIZED (
                SELECT kind, id FROM (%s) AS rows ORDER BY id FETCH FIRST $2 ROWS WITH TIES
            ), noted AS (
                INSERT INTO etl.outbox (op, kind, row_id) SELECT 'touch_later', kind, id FROM (%s) AS shown
            )
            SELECT count(*), (SELECT id FROM chunk ORDER BY id DESC LIMIT 1) FROM chunk
            $sql$, rows, shown)
        INTO looked_at, last_id USING sweep.place, row_limit;
    END IF;
    IF looked_at < row_limit THEN
        DELETE FROM etl.outbox o WHERE o.op = 'sweep' AND o.id = entry;
    ELSE
        UPDATE etl.outbox o SET row_id = last_id WHERE o.op = 'sweep' AND o.id = entry;
    END IF;
    RETURN greatest(looked_at, 1);
END
$$;
COMMENT ON COLUMN etl.outbox.row_id IS
    'The row. Of a sweep: the rows up to this id have been looked at; NULL: none yet.';

-- A further kind --------------------------------------------------------------------------------

-- Has the rows of a table be documents of their own. For a migration; the database index for the look for work
-- is made by the program, without a lock. As safe on a large, busy table as what was there before: nothing is
-- rewritten or scanned.
CREATE FUNCTION etl.follow_table(name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM etl.lock_tables(ARRAY[name]);
    EXECUTE format($sql$
        -- now() is the same for all rows, so PostgreSQL stores it once.
        ALTER TABLE content.%1$I
            ADD COLUMN touched_at timestamptz NOT NULL DEFAULT now(),
            ADD COLUMN indexed_at timestamptz,
            ADD COLUMN rejected_at timestamptz;
        ALTER TABLE content.%1$I ALTER COLUMN touched_at SET DEFAULT clock_timestamp();
        COMMENT ON COLUMN content.%1$I.touched_at IS
            'When anything that goes into this row''s document last changed; strictly increasing per row. Kept by triggers of etl.';
        COMMENT ON COLUMN content.%1$I.indexed_at IS
            'The stamp: the search engine acknowledged the document of exactly this touched_at. Set it to NULL to index the row again.';
        COMMENT ON COLUMN content.%1$I.rejected_at IS
            'The search engine refuses the document of exactly this touched_at; see etl.rejected.';

        -- The names sort last, so that these triggers see (and in our own transactions undo) what the users'
        -- triggers write.
        CREATE TRIGGER zzz_etl_touch BEFORE INSERT OR UPDATE ON content.%1$I
            FOR EACH ROW WHEN (current_setting('etl.syncing', true) IS DISTINCT FROM 'alone')
            EXECUTE FUNCTION etl.on_row_change();
        CREATE TRIGGER zzz_etl_delete AFTER DELETE ON content.%1$I REFERENCING OLD TABLE AS old_rows
            FOR EACH STATEMENT EXECUTE FUNCTION etl.on_row_delete();
        CREATE TRIGGER zzz_etl_truncate BEFORE TRUNCATE ON content.%1$I
            FOR EACH STATEMENT EXECUTE FUNCTION etl.on_truncate();
        -- ALWAYS: they fire under session_replication_role = replica, too.
        ALTER TABLE content.%1$I
            ENABLE ALWAYS TRIGGER zzz_etl_touch,
            ENABLE ALWAYS TRIGGER zzz_etl_delete,
            ENABLE ALWAYS TRIGGER zzz_etl_truncate;
        $sql$, name);
    INSERT INTO etl.state (kind) VALUES (name);
END
$$;

-- Takes that back, for the migration that goes the other way.
CREATE FUNCTION etl.unfollow_table(name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM etl.lock_tables(ARRAY[name]);
    EXECUTE format($sql$
        DROP TRIGGER zzz_etl_touch ON content.%1$I;
        DROP TRIGGER zzz_etl_delete ON content.%1$I;
        DROP TRIGGER zzz_etl_truncate ON content.%1$I;
        ALTER TABLE content.%1$I DROP COLUMN touched_at, DROP COLUMN indexed_at, DROP COLUMN rejected_at;
        $sql$, name);
    DELETE FROM etl.outbox WHERE kind = name;
    DELETE FROM etl.rejected WHERE kind = name;
    DELETE FROM etl.rebuild WHERE kind = name;
    DELETE FROM etl.followed WHERE kind = name;
    DELETE FROM etl.state WHERE kind = name;
END
$$;
