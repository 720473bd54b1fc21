-- For the look for work and its pages (src/postgres/pending.rs), as for films.
CREATE INDEX CONCURRENTLY IF NOT EXISTS person_etl_pending
ON content.person (touched_at, id)
WHERE (indexed_at IS NULL OR modified > indexed_at) AND rejected_at IS NULL;
