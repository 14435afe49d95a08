-- From where a change came, for the audit.
ALTER TABLE changes ADD COLUMN origin TEXT;

CREATE INDEX changes_by_time ON changes (collection, at, position);
CREATE INDEX changes_by_actor ON changes (collection, actor, at, position);

-- What was answered to writes with an Idempotency-Key. A row is written in the transaction of its write.
CREATE TABLE idempotency (
    actor TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    status INTEGER,
    position TEXT,
    headers TEXT,
    body TEXT,
    created_at TEXT NOT NULL,
    PRIMARY KEY (actor, key)
);
CREATE INDEX idempotency_by_time ON idempotency (created_at);
