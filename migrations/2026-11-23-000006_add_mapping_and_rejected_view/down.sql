DROP VIEW etl.rejected_documents;
DROP FUNCTION etl.list_rejected;
ALTER TABLE etl.state DROP COLUMN mapping;
