-- Quarterly rotation of the nightly job's key, and the end of a key that was found in a repository.
--
--   psql -v ON_ERROR_STOP=1 -v leaked_key_id=… -v key_file=/run/secrets/nightly.key -f rotate-keys.sql
--
-- The job reads its key from a file at each run, so that the old one has to last for one more night.

\set QUIET on

-- Before anything else, the leaked one: its sessions end now. It stays in the list, so that the audit can be matched.
REVOKE API KEY :'leaked_key_id';

BEGIN;

-- The new secret is returned here and never again. \gset keeps it off the terminal.
ALTER API KEY 'nightly-key' ROTATE OVERLAP '24 hours' \gset rotated_

-- The job has no business in other databases any more.
SELECT current_database() AS here \gset
ALTER API KEY 'nightly-key' SET DATABASES (:"here");

COMMIT;

-- Only what was committed is handed out.
\o :key_file
\qecho :rotated_api_key
\o

-- A key for the failover site, with an end of its own.
CREATE API KEY 'nightly-failover' FOR SERVICE ACCOUNT 'nightly' WITH DATABASES (:"here") EXPIRES IN '90 days' \gset failover_

-- What the service account has now; keys are not in it.
SHOW API KEYS FOR 'nightly';
