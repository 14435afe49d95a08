-- The triggers of the collections would write to tables that are gone.
DO $$
DECLARE
    made record;
BEGIN
    FOR made IN SELECT removal FROM artifacts WHERE starts_with(name, 'terrace_tally_') LOOP
        EXECUTE made.removal;
    END LOOP;
    DELETE FROM artifacts WHERE starts_with(name, 'terrace_tally_');
END $$;
DROP TRIGGER terrace_refuse_parent ON records;
DROP FUNCTION terrace_refuse_parent;
DROP TABLE tallied, tally_changes, tallies;
