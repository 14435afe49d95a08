-- Everything is made in the first schema of the search_path: an installation is a schema. Whoever writes past Terrace may
-- have another search_path, so functions are either bound when they are made (RETURN …) or bring their own.

-- All records of all collections, each collection in a partition of its own. Partitions, and what a collection declares
-- (indexes, search), are made by `terrace migrate` from the collection files, not by migrations.
-- Times are RFC 3339 texts in UTC with microseconds, so that text order is time order. COLLATE "C" is the order of
-- code points, whatever the locale of the database.
CREATE TABLE records (
    collection text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    data jsonb NOT NULL,
    search tsvector,
    created_at text COLLATE "C" NOT NULL,
    updated_at text COLLATE "C" NOT NULL,
    PRIMARY KEY (collection, id)
) PARTITION BY LIST (collection);

-- The change log, which is the audit trail too. Rows are only ever added, and removed by retention. A position is given
-- out before its transaction commits: what was committed when is for `transaction` and a snapshot to say.
CREATE TABLE changes (
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    transaction xid8 NOT NULL DEFAULT pg_current_xact_id(),
    collection text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    operation text NOT NULL CHECK (operation IN ('create', 'update', 'delete')),
    version bigint NOT NULL,
    actor text NOT NULL,
    at text COLLATE "C" NOT NULL,
    before jsonb,
    after jsonb
);

CREATE INDEX changes_by_transaction ON changes (transaction, position);
CREATE INDEX changes_by_record ON changes (collection, id, position);

-- What Terrace made for the declared collections, and how to remove it again.
CREATE TABLE artifacts (
    name text COLLATE "C" PRIMARY KEY,
    collection text NOT NULL,
    description text NOT NULL,
    removal text NOT NULL
);

-- Marks. `new` stands until what a new installation needs was done.
CREATE TABLE installation (
    name text PRIMARY KEY,
    value text NOT NULL
);
INSERT INTO installation (name, value) VALUES ('new', '');

-- The timeline that the server writes, which changes when a standby takes over: at once in what it must recover to, and with
-- its first checkpoint in that. 0 where the role may not ask.
CREATE FUNCTION terrace_timeline() RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    RETURN greatest((SELECT timeline_id FROM pg_control_checkpoint()),
        (SELECT min_recovery_end_timeline FROM pg_control_recovery()));
EXCEPTION WHEN OTHERS THEN
    RETURN 0;
END $$;

-- Search as FTS5 does it on SQLite: Porter's stemmer, and no stop words, which a phrase may need (`store` leaves them out of
-- queries).
CREATE TEXT SEARCH DICTIONARY terrace_porter (TEMPLATE = snowball, LANGUAGE = porter);
CREATE TEXT SEARCH CONFIGURATION terrace (PARSER = "default");
ALTER TEXT SEARCH CONFIGURATION terrace
    ADD MAPPING FOR asciiword, word, numword, asciihword, hword, numhword, hword_asciipart, hword_part, hword_numpart, int, uint,
    float, sfloat, version WITH terrace_porter;

-- Without accents, as FTS5 has it: U+0300 to U+036F fall off behind any letter, and letters that have theirs built in lose
-- them if they are Latin (й is another letter than и). In the end composed again: decomposed, a Korean syllable would begin
-- with others. Most texts have none.
CREATE FUNCTION terrace_unaccented(text text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN CASE WHEN octet_length(text) = length(text) THEN text
    ELSE normalize(regexp_replace(normalize(regexp_replace(text, '[\u0300-\u036f]+', '', 'g'), NFD),
        '([A-Za-z])[\u0300-\u036f]+', '\1', 'g'), NFC) END;

-- Only words, with spaces between them. PostgreSQL's parser would make hosts, paths, signed numbers and hyphenated words
-- of them; here, as for FTS5, all punctuation separates. Letters among the symbols (ª µ º, 々 〇) stay. ² ½ ① and
-- the like are words for FTS5 only.
-- At most 200,000 characters: a tsvector takes a megabyte of words, and a record that is longer must be stored all the same;
-- its end cannot be found by search. (Words of over 2,047 bytes are left out, and behind the 16,383rd word phrases are
-- not told from their words.)
CREATE FUNCTION terrace_words(text text, length integer) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN left(regexp_replace(terrace_unaccented(left(text, length)), '[\u0001-\u002f\u003a-\u0040\u005b-\u0060\u007b-\u00a9'
    '\u00ab-\u00b1\u00b4\u00b6-\u00b8\u00bb\u00bf\u2000-\u206f\u3000-\u3004\u3008-\u3020\u3030\u303d-\u303f]+', ' ', 'g'), length);

CREATE FUNCTION terrace_vector(text text, length integer) RETURNS tsvector LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN coalesce(to_tsvector('terrace', terrace_words(text, length)), '');

-- From the text of a query that Terrace has put together from words; see `store/postgres/search.rs`.
CREATE FUNCTION terrace_query(text text) RETURNS tsquery LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN to_tsquery('terrace', terrace_unaccented(text));

-- Rows written past Terrace (by psql, say) must be as whole as its own, and logged: the caches of all instances follow the
-- log. Terrace's sessions say that they are the server and do both themselves, which is cheaper for batches.
CREATE FUNCTION terrace_now(after text) RETURNS text LANGUAGE sql VOLATILE
    RETURN to_char(greatest(clock_timestamp(), CASE WHEN after ~ '^\d{4}-\d\d-\d\dT' THEN after::timestamptz + interval '1 microsecond' END)
    AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');

CREATE FUNCTION terrace_foreign_write() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF jsonb_typeof(new.data) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION 'records.data must be a JSON object' USING ERRCODE = 'check_violation';
    END IF;
    IF octet_length(new.id) NOT BETWEEN 1 AND 255 OR new.id ~ '[\u0001-\u001f\u007f-\u009f/]' OR new.id ~ '^(_|\.{1,2}$)' THEN
        RAISE EXCEPTION 'records.id takes 1 to 255 bytes without control characters and /, and does not begin with _'
            USING ERRCODE = 'check_violation';
    END IF;
    IF tg_op = 'INSERT' THEN
        new.version := coalesce(new.version, 1);
        new.created_at := coalesce(new.created_at, terrace_now(NULL));
        new.updated_at := coalesce(new.updated_at, new.created_at);
    ELSE
        new.version := old.version + 1;
        new.created_at := old.created_at;
        new.updated_at := terrace_now(old.updated_at);
    END IF;
    new.data := new.data
        || jsonb_build_object('version', new.version, 'created_at', new.created_at, 'updated_at', new.updated_at);
    RETURN new;
END $$;

-- As its owner: who may write records need not be allowed to write the log.
CREATE FUNCTION terrace_foreign_change() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    actor text := 'postgres:' || session_user;
BEGIN
    -- Another id is another record.
    IF tg_op = 'DELETE' OR tg_op = 'UPDATE' AND (old.collection, old.id) IS DISTINCT FROM (new.collection, new.id) THEN
        INSERT INTO changes (collection, id, operation, version, actor, at, before)
            VALUES (old.collection, old.id, 'delete', old.version, actor, terrace_now(old.updated_at), old.data);
    END IF;
    IF tg_op = 'INSERT' OR tg_op = 'UPDATE' AND (old.collection, old.id) IS DISTINCT FROM (new.collection, new.id) THEN
        INSERT INTO changes (collection, id, operation, version, actor, at, after)
            VALUES (new.collection, new.id, 'create', new.version, actor, new.updated_at, new.data);
    ELSIF tg_op = 'UPDATE' THEN
        INSERT INTO changes (collection, id, operation, version, actor, at, before, after)
            VALUES (new.collection, new.id, 'update', new.version, actor, new.updated_at, old.data, new.data);
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION terrace_refuse_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'records are not truncated, because that could not be logged: use DELETE FROM %', tg_table_name
        USING ERRCODE = 'feature_not_supported';
END $$;

-- Partitions get the row triggers by being partitions; that against TRUNCATE is made with each of them.
CREATE TRIGGER terrace_foreign_write BEFORE INSERT OR UPDATE ON records FOR EACH ROW
    WHEN (current_setting('terrace.writer', true) IS DISTINCT FROM 'server') EXECUTE FUNCTION terrace_foreign_write();
CREATE TRIGGER terrace_foreign_change AFTER INSERT OR UPDATE OR DELETE ON records FOR EACH ROW
    WHEN (current_setting('terrace.writer', true) IS DISTINCT FROM 'server') EXECUTE FUNCTION terrace_foreign_change();
CREATE TRIGGER terrace_refuse_truncate BEFORE TRUNCATE ON records EXECUTE FUNCTION terrace_refuse_truncate();
