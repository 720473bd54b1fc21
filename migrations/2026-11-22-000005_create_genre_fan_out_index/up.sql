-- For the look for work: genres whose films have not been touched since they changed.
CREATE INDEX CONCURRENTLY IF NOT EXISTS genre_etl_fan_out
ON content.genre (touched_at, id)
WHERE fanned_out_at IS NULL;
