-- Who Terrace knows. Every change of these rows that outdates what is known of a caller is in the change log, under the collections
-- terrace_users (id), terrace_keys (prefix) and terrace_sessions (id), in the same transaction and without any secret.
-- Times are texts as everywhere. An e-mail address is lower-cased.
CREATE TABLE users (
    id text COLLATE "C" PRIMARY KEY,
    email text COLLATE "C" NOT NULL UNIQUE,
    password_hash text NOT NULL,
    role text NOT NULL CHECK (role IN ('viewer', 'editor', 'admin')),
    created_at text COLLATE "C" NOT NULL,
    updated_at text COLLATE "C" NOT NULL,
    disabled_at text COLLATE "C"
);

-- `hash` is the SHA-256 of a secret of 256 random bits. `scopes` is a JSON array of texts; null is everything that the role may.
CREATE TABLE api_keys (
    prefix text COLLATE "C" PRIMARY KEY,
    name text NOT NULL,
    hash text NOT NULL,
    role text NOT NULL CHECK (role IN ('viewer', 'editor', 'admin')),
    user_id text COLLATE "C" REFERENCES users (id),
    scopes text,
    quota text,
    created_at text COLLATE "C" NOT NULL,
    expires_at text COLLATE "C",
    revoked_at text COLLATE "C",
    last_used_at text COLLATE "C"
);
CREATE INDEX api_keys_by_user ON api_keys (user_id);

-- A login and the refresh tokens that follow from it, of which only hashes are here. `family` is in all of them, `newest` in the
-- last one. `previous` is the one before, and `step` what the newest was derived by from it.
CREATE TABLE sessions (
    id text COLLATE "C" PRIMARY KEY,
    user_id text COLLATE "C" NOT NULL REFERENCES users (id),
    family text NOT NULL,
    newest text NOT NULL,
    previous text,
    step text,
    created_at text COLLATE "C" NOT NULL,
    rotated_at text COLLATE "C" NOT NULL,
    expires_at text COLLATE "C" NOT NULL,
    ended_at text COLLATE "C"
);
CREATE INDEX sessions_by_user ON sessions (user_id);
CREATE INDEX sessions_by_expiry ON sessions (expires_at);

-- What access tokens are signed with.
CREATE TABLE signing_keys (
    kid text COLLATE "C" PRIMARY KEY,
    algorithm text NOT NULL,
    private text NOT NULL,
    created_at text COLLATE "C" NOT NULL
);

-- The row that is locked by who makes a signing key or the first key of all. Its value says that there has been one.
INSERT INTO installation (name, value) VALUES ('accounts', '');

-- What is changed past Terrace, for example by an operator in a hurry, is logged as well: the caches of all instances follow the log.
-- The arguments are the collection and the column of the id. A key's principal depends on its own row alone, so a change of its user
-- is one of the key, too.
CREATE FUNCTION terrace_foreign_account() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    actor text := 'postgres:' || session_user;
    changed text := to_jsonb(old) ->> tg_argv[1];
BEGIN
    INSERT INTO changes (collection, id, operation, version, actor, at)
        VALUES (tg_argv[0], changed, lower(tg_op), 1, actor, terrace_now(NULL));
    IF tg_table_name = 'users' THEN
        INSERT INTO changes (collection, id, operation, version, actor, at)
            SELECT 'terrace_keys', prefix, 'update', 1, actor, terrace_now(NULL) FROM api_keys WHERE user_id = changed;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER terrace_foreign_account AFTER UPDATE OR DELETE ON users FOR EACH ROW
    WHEN (current_setting('terrace.writer', true) IS DISTINCT FROM 'server')
    EXECUTE FUNCTION terrace_foreign_account('terrace_users', 'id');
CREATE TRIGGER terrace_foreign_account AFTER UPDATE OR DELETE ON api_keys FOR EACH ROW
    WHEN (current_setting('terrace.writer', true) IS DISTINCT FROM 'server')
    EXECUTE FUNCTION terrace_foreign_account('terrace_keys', 'prefix');
CREATE TRIGGER terrace_foreign_account AFTER UPDATE OR DELETE ON sessions FOR EACH ROW
    WHEN (current_setting('terrace.writer', true) IS DISTINCT FROM 'server')
    EXECUTE FUNCTION terrace_foreign_account('terrace_sessions', 'id');
