-- Somebody leaves the company: no way in from the first statement on, and nothing of the work is lost.
--
--   psql -v ON_ERROR_STOP=1 -v leaver=ben -v heir=ana -f offboard.sql
--
-- Not in one transaction, and on purpose: the doors are to be shut even if one of the later steps needs a second look.

\set QUIET on

-- 1. Shut the doors. Sessions are closed, keys are worth nothing while their owner may not log in.
ALTER USER :"leaver" NOLOGIN;

-- 2. For the record: what there is of this person's.
SELECT n.nspname || '.' || c.relname AS inherited
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_roles r ON r.oid = c.relowner
 WHERE r.rolname = :'leaver' AND c.relkind = 'r'
 ORDER BY 1;
SHOW API KEYS FOR :"leaver";

-- 3. Take what the person was given by name: a role that is granted something cannot be dropped.
REVOKE data_team FROM :"leaver";
REVOKE ALL ON data_team_work.report FROM :"leaver";

-- 4. Tables, sequences and functions go to the heir, in every database; keys go with their owner.
DROP USER :"leaver" REASSIGN OWNED TO :"heir";

-- 5. Make sure.
SELECT count(*) = 0 AS is_gone FROM pg_roles WHERE rolname = :'leaver' \gset
\if :is_gone
  \echo offboarded :leaver
\else
  DO $$ BEGIN RAISE EXCEPTION 'the role is still there'; END $$;
\endif
