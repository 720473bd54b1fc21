GRANT USAGE ON SCHEMA content, etl TO ROLE;
GRANT SELECT ON content.film_work, content.person, content.genre,
    content.person_film_work, content.genre_film_work TO ROLE;
GRANT UPDATE (touched_at, indexed_at, rejected_at) ON content.film_work TO ROLE;
GRANT UPDATE (touched_at, indexed_at, rejected_at, fanned_out_at) ON content.person, content.genre TO ROLE;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA etl TO ROLE;
GRANT SELECT, INSERT, UPDATE, DELETE ON etl.outbox, etl.rejected, etl.rebuild TO ROLE;
GRANT SELECT ON etl.rejected_documents, etl.link TO ROLE;
GRANT SELECT, INSERT ON etl.followed TO ROLE;
GRANT SELECT, UPDATE ON etl.state, etl.term TO ROLE;
GRANT SELECT ON etl.__diesel_schema_migrations TO ROLE;
