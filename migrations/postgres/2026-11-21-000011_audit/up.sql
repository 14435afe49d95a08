-- From where a change came, for the audit. Rows of foreign writers have none.
--
-- The column takes no time once the table is locked; but whoever has written in a transaction that is still open keeps it from
-- that, and behind it everybody else who wants to write. So it does not wait for long, steps back and tries again.
DO $$
BEGIN
    LOOP
        BEGIN
            PERFORM set_config('lock_timeout', '500', true);
            ALTER TABLE changes ADD COLUMN origin text;
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            PERFORM pg_sleep(1);
        END;
    END LOOP;
END $$;

-- The indexes of the audit, changes_by_time and changes_by_actor, are made concurrently, which a migration cannot; see
-- `store/postgres/log_indexes.rs`.

-- What was answered to writes with an Idempotency-Key. A row is written in the transaction of its write.
CREATE TABLE idempotency (
    actor text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    fingerprint text NOT NULL,
    status bigint,
    position text,
    headers text,
    body text,
    created_at text COLLATE "C" NOT NULL,
    PRIMARY KEY (actor, key)
);
CREATE INDEX idempotency_by_time ON idempotency (created_at);
