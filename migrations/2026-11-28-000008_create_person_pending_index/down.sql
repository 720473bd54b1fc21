DROP INDEX CONCURRENTLY IF EXISTS content.person_etl_pending;
