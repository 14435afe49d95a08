-- Who Terrace knows. Every change of these rows that outdates what is known of a caller is in the change log, under the collections
-- terrace_users (id), terrace_keys (prefix) and terrace_sessions (id), in the same transaction and without any secret.
-- Times are texts as everywhere. An e-mail address is lower-cased.
CREATE TABLE users (
    id TEXT NOT NULL PRIMARY KEY,
    email TEXT NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('viewer', 'editor', 'admin')),
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    disabled_at TEXT
);

-- `hash` is the SHA-256 of a secret of 256 random bits. `scopes` is a JSON array of texts; null is everything that the role may.
CREATE TABLE api_keys (
    prefix TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    hash TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('viewer', 'editor', 'admin')),
    user_id TEXT REFERENCES users (id),
    scopes TEXT,
    quota TEXT,
    created_at TEXT NOT NULL,
    expires_at TEXT,
    revoked_at TEXT,
    last_used_at TEXT
);
CREATE INDEX api_keys_by_user ON api_keys (user_id);

-- A login and the refresh tokens that follow from it, of which only hashes are here. `family` is in all of them, `newest` in the
-- last one. `previous` is the one before, and `step` what the newest was derived by from it.
CREATE TABLE sessions (
    id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id),
    family TEXT NOT NULL,
    newest TEXT NOT NULL,
    previous TEXT,
    step TEXT,
    created_at TEXT NOT NULL,
    rotated_at TEXT NOT NULL,
    expires_at TEXT NOT NULL,
    ended_at TEXT
);
CREATE INDEX sessions_by_user ON sessions (user_id);
CREATE INDEX sessions_by_expiry ON sessions (expires_at);

-- What access tokens are signed with.
CREATE TABLE signing_keys (
    kid TEXT NOT NULL PRIMARY KEY,
    algorithm TEXT NOT NULL,
    private TEXT NOT NULL,
    created_at TEXT NOT NULL
);

-- The row that is locked by who makes a signing key or the first key of all. Its value says that there has been one.
INSERT INTO installation (name, value) VALUES ('accounts', '');
