DROP VIEW etl.rejected_documents;
ALTER TABLE etl.state DROP COLUMN mapping;
