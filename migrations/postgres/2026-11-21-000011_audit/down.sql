DROP TABLE idempotency;
DROP INDEX IF EXISTS changes_by_actor;
DROP INDEX IF EXISTS changes_by_time;
ALTER TABLE changes DROP COLUMN origin;
