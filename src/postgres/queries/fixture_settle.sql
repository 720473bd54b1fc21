-- Of several rows with the same key the last one counts.
DELETE FROM pg_temp.staged_{table} s
USING pg_temp.staged_{table} later
WHERE later.id = s.id AND (later.file, later.object) > (s.file, s.object)
