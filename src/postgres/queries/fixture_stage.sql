-- $1 an array of rows. Each value is read as PostgreSQL reads text for a column of its type.
INSERT INTO pg_temp.staged_{table}
SELECT * FROM json_populate_recordset(NULL::pg_temp.staged_{table}, $1::json)
