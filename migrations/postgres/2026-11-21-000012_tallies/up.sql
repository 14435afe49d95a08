-- Tallies: how many records of a collection have which value in a field, kept so that nobody has to count them again.
--
-- A writer only ever adds rows to `tally_changes`, for what its statement added (+n) and took away (-n). So no two writers
-- meet in a row, and what a statement reads there is exactly what it reads in `records`: both are of one snapshot. From time
-- to time rows of `tally_changes` are summed up into `tallies`, in one transaction; a reading takes the sum over both.
-- The triggers that write here are made with the partitions, by `terrace migrate`; see `store/postgres/tallies.rs`.
--
-- `field` is '' for all records. `value` is what statistics group by, as JSON; JSON's null where there is none. Values may be
-- longer than an index takes, so the index has their hash.
CREATE TABLE tallies (
    collection text COLLATE "C" NOT NULL,
    field text COLLATE "C" NOT NULL,
    value jsonb NOT NULL,
    records bigint NOT NULL
);
CREATE INDEX tallies_by_value ON tallies (collection, field, jsonb_hash_extended(value, 0));

-- Nearly all of it is always about to go, so it is swept when it has some thousand dead rows, not when a part of it is dead.
CREATE TABLE tally_changes (
    collection text COLLATE "C" NOT NULL,
    field text COLLATE "C" NOT NULL,
    value jsonb NOT NULL,
    records bigint NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_insert_threshold = -1);
CREATE INDEX tally_changes_by_value ON tally_changes (collection, field, jsonb_hash_extended(value, 0));

-- Which fields are tallied, and how their values are made of documents (`kind`). Only what is `complete` may be read. What has
-- too many values is `abandoned`, and stays so: a writer with a snapshot from before would not know of a change of mind.
CREATE TABLE tallied (
    collection text COLLATE "C" NOT NULL,
    field text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    state text NOT NULL CHECK (state IN ('recorded', 'complete', 'abandoned')),
    PRIMARY KEY (collection, field, kind)
);

-- Sessions of the server write to the partitions, where the triggers of their statements are. Those would not see what is written
-- by way of the parent, so that is refused to whoever says to be the server. (Others have triggers for each row.)
CREATE FUNCTION terrace_refuse_parent() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a session of the server writes to the table of a collection, not to %', tg_table_name
        USING ERRCODE = 'feature_not_supported';
END $$;

-- It takes no time once the table is locked; but who has written to it in a transaction that is still open keeps it from that, and
-- behind it everybody else. So it does not wait for long, steps back and tries again.
DO $$
BEGIN
    LOOP
        BEGIN
            PERFORM set_config('lock_timeout', '500', true);
            CREATE TRIGGER terrace_refuse_parent BEFORE INSERT OR DELETE OR UPDATE OF collection ON records FOR EACH STATEMENT
                WHEN (current_setting('terrace.writer', true) = 'server') EXECUTE FUNCTION terrace_refuse_parent();
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            PERFORM pg_sleep(1);
        END;
    END LOOP;
END $$;
