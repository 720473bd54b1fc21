-- The catalogue is the users', also where we made its tables: it stays.
SELECT;
