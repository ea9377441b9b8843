/** Perl's DBD::Pg: libpq, with server-side and client-side preparation. */

import { describeClientProgram, isRunnable } from "../support/client-program.ts";

// Debian's package belongs to Debian's Perl; another one may come first in PATH.
const perl = ["/usr/bin/perl", "perl"].find((program) => isRunnable(program, "-MDBD::Pg", "-e", "1"));

describeClientProgram({
  client: "DBD::Pg (libdbd-pg-perl)",
  isPresent: perl !== undefined,
  commands: [[perl ?? "perl", "perl_checks.pl"]],
  checks: [
    "round-trips parameters of many types",
    "repeats a prepared statement with pg_server_prepare=0",
    "repeats a prepared statement with pg_server_prepare=1",
    "repeats a prepared statement with pg_server_prepare=2",
    "copies rows in and out",
    "reads the catalogs",
  ],
});
