CREATE OR REPLACE FUNCTION terrace_timeline() RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    RETURN greatest((SELECT timeline_id FROM pg_control_checkpoint()),
        (SELECT min_recovery_end_timeline FROM pg_control_recovery()));
EXCEPTION WHEN OTHERS THEN
    RETURN 0;
END $$;
