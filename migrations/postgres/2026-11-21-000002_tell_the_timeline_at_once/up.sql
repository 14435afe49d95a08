-- The timeline that the server writes, which changes when a standby takes over. A server that takes writes has it in the name of
-- the file that it writes to, from the moment of its promotion on; the control file has it only with the first checkpoint
-- after that, which may be minutes later. A standby has that of what it must recover to. 0 where the role may not ask.
CREATE OR REPLACE FUNCTION terrace_timeline() RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    IF pg_is_in_recovery() THEN
        RETURN greatest((SELECT timeline_id FROM pg_control_checkpoint()),
            (SELECT min_recovery_end_timeline FROM pg_control_recovery()));
    END IF;
    RETURN ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint;
EXCEPTION WHEN OTHERS THEN
    RETURN 0;
END $$;
