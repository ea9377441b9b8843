/** PHP's pgsql functions and PDO: libpq, with parameters in text. */

import { describeClientProgram, isRunnable } from "../support/client-program.ts";

const needed = "exit(extension_loaded('pgsql') && extension_loaded('pdo_pgsql') ? 0 : 1);";

describeClientProgram({
  client: "PHP (php-cli, php-pgsql)",
  isPresent: isRunnable("php", "-r", needed),
  commands: [["php", "php_checks.php"]],
  checks: [
    "round-trips parameters of many types",
    "repeats a prepared statement",
    "copies rows in and out",
    "keeps the session of a persistent connection",
    "PDO: round-trips parameters with real prepared statements",
    "PDO: round-trips parameters with emulated prepared statements",
    "PDO: sends and receives bytea",
    "PDO: commits, rolls back and reports an error with its SQLSTATE",
    "PDO: reads rows through a scrollable cursor",
    "PDO: is refused for a wrong password",
  ],
});
