-- For the look for work and its pages (src/postgres/pending.rs), as for films.
CREATE INDEX CONCURRENTLY IF NOT EXISTS genre_etl_pending
ON content.genre (touched_at, id)
WHERE (indexed_at IS NULL OR modified > indexed_at) AND rejected_at IS NULL;
