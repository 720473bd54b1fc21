DROP INDEX CONCURRENTLY IF EXISTS content.film_work_etl_pending;
