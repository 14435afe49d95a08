DROP TABLE idempotency;
DROP INDEX changes_by_actor;
DROP INDEX changes_by_time;
ALTER TABLE changes DROP COLUMN origin;
