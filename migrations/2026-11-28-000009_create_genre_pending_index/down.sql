DROP INDEX CONCURRENTLY IF EXISTS content.genre_etl_pending;
