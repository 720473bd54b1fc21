DROP TABLE etl.rebuild;
ALTER TABLE etl.state DROP COLUMN settings, DROP COLUMN is_loading;
