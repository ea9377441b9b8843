/** Keeps what must not be read by others out of PostgreSQL's log and pg_stat_activity: verifiers, as text or as bound parameters. */

import type { ClientBase } from "pg";

/**
 * Switches the logging and showing of statements off for the rest of the transaction, as far as our login may: who reads a
 * verifier with
 * its ServerKey in a log could pretend to be the server, and try passwords offline.
 */
export async function switchOffStatementLog(client: Pick<ClientBase, "query">): Promise<void> {
  await client.query(
    `SELECT pg_catalog.set_config(s.name, v.value, true)
       FROM pg_catalog.pg_settings s
       JOIN (VALUES ('log_statement', 'none'), ('log_min_error_statement', 'panic'), ('log_min_duration_statement', '-1'),
                    ('log_min_duration_sample', '-1'), ('log_transaction_sample_rate', '0'), ('log_duration', 'off'),
                    ('log_parameter_max_length', '0'), ('log_parameter_max_length_on_error', '0'),
                    ('track_activities', 'off'), ('pgaudit.log', 'none'), ('pg_stat_statements.track_utility', 'off')) AS v (name, value)
         ON v.name = s.name
      WHERE pg_catalog.has_parameter_privilege(s.name, 'SET') OR s.context = 'user'`,
  );
}
