DROP INDEX CONCURRENTLY IF EXISTS content.person_etl_fan_out;
