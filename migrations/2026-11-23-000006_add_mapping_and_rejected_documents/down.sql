-- What etl.expand_fan_outs does is the same as before, so it stays as it is.
DROP VIEW etl.rejected_documents;
DROP FUNCTION etl.list_rejected;
ALTER TABLE etl.state DROP COLUMN mapping;
