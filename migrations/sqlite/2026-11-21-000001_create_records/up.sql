-- All records of all collections. What a collection declares (indexes, search tables, triggers) is made by
-- `terrace migrate` from the collection files, not by migrations.
CREATE TABLE records (
    rowid INTEGER PRIMARY KEY,
    collection TEXT NOT NULL,
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    data TEXT NOT NULL,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    UNIQUE (collection, id)
);

-- The change log, which is the audit trail too. Rows are only ever added. AUTOINCREMENT: a position is never given
-- out twice, not even after the newest rows were removed by retention.
CREATE TABLE changes (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    collection TEXT NOT NULL,
    id TEXT NOT NULL,
    operation TEXT NOT NULL CHECK (operation IN ('create', 'update', 'delete')),
    version INTEGER NOT NULL,
    actor TEXT NOT NULL,
    at TEXT NOT NULL,
    before TEXT,
    after TEXT
);

CREATE INDEX changes_by_record ON changes (collection, id, position);

-- The elements of indexed array fields, filled by triggers.
CREATE TABLE array_terms (
    collection TEXT NOT NULL,
    field TEXT NOT NULL,
    value ANY NOT NULL,
    record INTEGER NOT NULL,
    PRIMARY KEY (collection, field, value, record)
) STRICT, WITHOUT ROWID;

-- What Terrace made for the declared collections, and how to remove it again.
CREATE TABLE artifacts (
    name TEXT NOT NULL PRIMARY KEY,
    collection TEXT NOT NULL,
    description TEXT NOT NULL,
    removal TEXT NOT NULL
) WITHOUT ROWID;

-- Marks of the whole installation, for example that a copy into it has not ended.
CREATE TABLE installation (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
