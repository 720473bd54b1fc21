-- For the look for work: persons whose films have not been touched since they changed.
CREATE INDEX CONCURRENTLY IF NOT EXISTS person_etl_fan_out
ON content.person (touched_at, id)
WHERE fanned_out_at IS NULL;
