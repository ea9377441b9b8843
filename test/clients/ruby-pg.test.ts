/** ruby-pg: libpq without blocking calls, with binary formats and pipelining. */

import { describeClientProgram, isRunnable } from "../support/client-program.ts";

// Debian's package belongs to Debian's Ruby; another one may come first in PATH.
const ruby = ["/usr/bin/ruby", "ruby"].find((program) => isRunnable(program, "-rpg", "-e", ""));

describeClientProgram({
  client: "ruby-pg (ruby-pg)",
  isPresent: ruby !== undefined,
  commands: [[ruby ?? "ruby", "ruby_checks.rb"]],
  checks: [
    "round-trips parameters of many types",
    "sends and receives binary formats",
    "repeats a prepared statement",
    "copies rows in and out",
    "streams 100,000 rows in single-row mode",
    "pipelines statements and gets each result in order",
    "resets its session",
  ],
});
