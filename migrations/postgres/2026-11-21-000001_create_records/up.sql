-- Written by the branch sql.
SELECT 1;
