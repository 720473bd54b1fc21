-- For the look for work and its pages (src/postgres/film_work.rs): what is pending, in the order
-- in which it is read. CONCURRENTLY, alone in its file: no writer waits while it is built.
CREATE INDEX CONCURRENTLY IF NOT EXISTS film_work_etl_pending
ON content.film_work (touched_at, id)
WHERE (indexed_at IS NULL OR modified > indexed_at) AND rejected_at IS NULL;
