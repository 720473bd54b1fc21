DROP TABLE etl.rebuild;
ALTER TABLE etl.state
    DROP COLUMN settings, DROP COLUMN is_loading, DROP COLUMN former_index, DROP COLUMN retired_at;
DROP INDEX etl.rejected_kind_retry_at;
CREATE INDEX rejected_retry_at ON etl.rejected (retry_at);
