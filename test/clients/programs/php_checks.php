<?php
/** What PHP's pgsql functions and PDO do with a server; one JSON line for each check. */

const HORSE = "Příliš žluťoučký kůň \u{1F40E} ' \" \\ ? \$1";
const RAISE = "DO \$\$BEGIN RAISE EXCEPTION 'no' USING ERRCODE='22023', DETAIL='Why.', HINT='Do.'; END\$\$";

$user = getenv('PGUSER');

function check(string $name, callable $action): void
{
    try {
        $action();
        $line = ['check' => $name, 'ok' => true];
    } catch (Throwable $error) {
        $line = ['check' => $name, 'ok' => false, 'message' => get_class($error) . ': ' . $error->getMessage()];
    }
    echo json_encode($line, JSON_INVALID_UTF8_SUBSTITUTE), "\n";
}

function same(mixed $actual, mixed $expected, string $what = 'value'): void
{
    if ($actual !== $expected) {
        throw new Exception("$what: got " . substr(var_export($actual, true), 0, 300) . ', expected ' . substr(var_export($expected, true), 0, 300));
    }
}

function contains(string $text, string $part): void
{
    if (!str_contains($text, $part)) {
        throw new Exception("'$part' is not in '$text'");
    }
}

/** A warning of pg_connect is the only place where its error message is. */
function connect(string $more = ''): PgSql\Connection
{
    set_error_handler(fn (int $level, string $message) => throw new Exception($message));
    try {
        $place = 'host=' . getenv('PGHOST') . ' port=' . getenv('PGPORT') . ' dbname=' . getenv('PGDATABASE');
        return pg_connect("$place $more", PGSQL_CONNECT_FORCE_NEW);
    } finally {
        restore_error_handler();
    }
}

function refusal(callable $action): Throwable
{
    try {
        $action();
    } catch (Throwable $error) {
        return $error;
    }
    throw new Exception('was not refused');
}

function one(PgSql\Connection $conn, string $sql, array $parameters = []): mixed
{
    return pg_fetch_result(pg_query_params($conn, $sql, $parameters), 0, 0);
}

/** The result of a failing statement with all its error fields, which pg_query does not give. */
function failing(PgSql\Connection $conn, string $sql): PgSql\Result
{
    pg_send_query($conn, $sql);
    $result = pg_get_result($conn);
    while (pg_get_result($conn)) {
    }
    return $result;
}

function pdo(array $options = [], ?string $password = null): PDO
{
    $dsn = 'pgsql:host=' . getenv('PGHOST') . ';port=' . getenv('PGPORT') . ';dbname=' . getenv('PGDATABASE');
    return new PDO($dsn, getenv('PGUSER'), $password ?? getenv('PGPASSWORD'), $options);
}

check('logs in with a password and acts as its own role', function () use ($user) {
    same(one(connect(), "SELECT current_user || ' ' || session_user"), "$user $user");
});

check("sees the server's parameters and its own application_name", function () {
    $conn = connect("application_name='php checks' options='--client_encoding=LATIN2'");
    same(pg_parameter_status($conn, 'server_encoding'), 'UTF8', 'server_encoding');
    same(pg_parameter_status($conn, 'application_name'), 'php checks', 'application_name');
    same(pg_client_encoding($conn), 'LATIN2', 'client_encoding');
    same(pg_version($conn)['server'] >= '15', true, 'server version');
    same(pg_transaction_status($conn), PGSQL_TRANSACTION_IDLE, 'transaction status');
});

check('is refused with 28P01 for a wrong password', function () use ($user) {
    $error = refusal(fn () => connect("password='not the password'"));
    contains($error->getMessage(), "password authentication failed for user \"$user\"");
});

check('is refused with the same words for an unknown user', function () {
    $error = refusal(fn () => connect('user=nobody_of_this_name'));
    contains($error->getMessage(), 'password authentication failed for user "nobody_of_this_name"');
});

check('round-trips parameters of many types', function () {
    $conn = connect();
    $values = [
        ['int8', '-9223372036854775807'], ['numeric', '12345678901234567890.012345678900'], ['bool', 't'],
        ['text', HORSE], ['text', ''], ['text', null], ['int8[]', '{1,NULL,-3}'],
        ['timestamptz', '2024-02-29 18:29:59.123456+00'], ['uuid', '6b1f4f9e-2f5a-4c1e-9d43-0b8f5b1d7a10'],
    ];
    pg_query($conn, "SET TimeZone = 'UTC'");
    foreach ($values as [$type, $value]) {
        same(one($conn, "SELECT \$1::$type", [$value]), $value, $type);
    }
    $bytes = implode('', array_map('chr', range(0, 255)));
    same(pg_unescape_bytea(one($conn, 'SELECT $1::bytea', [pg_escape_bytea($conn, $bytes)])), $bytes, 'bytea');
});

check('repeats a prepared statement', function () {
    $conn = connect();
    pg_prepare($conn, 'addition', 'SELECT $1::int + 1, $2::text');
    for ($number = 0; $number < 20; $number++) {
        same(pg_fetch_row(pg_execute($conn, 'addition', [$number, HORSE])), [(string) ($number + 1), HORSE]);
    }
    same(one($conn, "SELECT count(*) FROM pg_prepared_statements WHERE name = 'addition'"), '1');
});

check('keeps what it commits and loses what it rolls back', function () {
    [$conn, $other] = [connect(), connect()];
    pg_query($conn, 'BEGIN');
    pg_query_params($conn, 'INSERT INTO account VALUES ($1, $2, $3)', [100, 'kept', 1]);
    same(pg_transaction_status($conn), PGSQL_TRANSACTION_INTRANS, 'status');
    same(one($other, 'SELECT count(*) FROM account WHERE id = 100'), '0', 'before the commit');
    pg_query($conn, 'COMMIT');
    pg_query($conn, 'BEGIN; DELETE FROM account WHERE id = 100');
    pg_query($conn, 'ROLLBACK');
    same(one($other, 'SELECT owner FROM account WHERE id = 100'), 'kept');
});

check('returns to a savepoint', function () {
    $conn = connect();
    pg_query($conn, "BEGIN; INSERT INTO account VALUES (110, 'outer', 1); SAVEPOINT before_duplicate");
    same(pg_result_error_field(failing($conn, "INSERT INTO account VALUES (110, 'inner', 1)"), PGSQL_DIAG_SQLSTATE), '23505');
    pg_query($conn, 'ROLLBACK TO SAVEPOINT before_duplicate; UPDATE account SET balance = 2 WHERE id = 110; COMMIT');
    same(one($conn, 'SELECT balance FROM account WHERE id = 110'), '2.00');
});

check('is refused with 25P02 after an error until it rolls back', function () {
    $conn = connect();
    pg_query($conn, 'BEGIN');
    same(pg_result_error_field(failing($conn, 'SELECT 1/0'), PGSQL_DIAG_SQLSTATE), '22012');
    same(pg_transaction_status($conn), PGSQL_TRANSACTION_INERROR, 'status');
    same(pg_result_error_field(failing($conn, 'SELECT 1'), PGSQL_DIAG_SQLSTATE), '25P02');
    pg_query($conn, 'ROLLBACK');
    same(one($conn, 'SELECT 1'), '1');
});

check('gets every field of a constraint violation', function () {
    $conn = connect();
    $result = failing($conn, "INSERT INTO account VALUES (1, 'x', 1)");
    $fields = [
        PGSQL_DIAG_SEVERITY => 'ERROR', PGSQL_DIAG_SQLSTATE => '23505', PGSQL_DIAG_SCHEMA_NAME => 'public',
        PGSQL_DIAG_TABLE_NAME => 'account', PGSQL_DIAG_CONSTRAINT_NAME => 'account_pkey',
        PGSQL_DIAG_MESSAGE_DETAIL => 'Key (id)=(1) already exists.',
    ];
    foreach ($fields as $field => $value) {
        same(pg_result_error_field($result, $field), $value, "field $field");
    }
    same(pg_result_error_field(failing($conn, 'INSERT INTO account VALUES (2)'), PGSQL_DIAG_COLUMN_NAME), 'owner');
});

check('gets the position of a syntax error', function () {
    same(pg_result_error_field(failing(connect(), 'SELECT 1,, 2'), PGSQL_DIAG_STATEMENT_POSITION), '10');
});

check('gets detail and hint of a raised error', function () {
    $result = failing(connect(), RAISE);
    same(pg_result_error_field($result, PGSQL_DIAG_MESSAGE_PRIMARY), 'no');
    same(pg_result_error_field($result, PGSQL_DIAG_MESSAGE_DETAIL), 'Why.');
    same(pg_result_error_field($result, PGSQL_DIAG_MESSAGE_HINT), 'Do.');
});

check('copies rows in and out', function () {
    $conn = connect();
    pg_query($conn, 'CREATE TEMP TABLE copied (id int, name text)');
    $rows = array_map(fn (int $n) => "$n\trow $n\n", range(1, 5000));
    same(pg_copy_from($conn, 'copied', $rows), true, 'copied in');
    same(pg_copy_to($conn, 'copied') === $rows, true, 'the rows came back');
});

check('goes on after a failed copy', function () {
    $conn = connect();
    pg_query($conn, 'CREATE TEMP TABLE copied (id int)');
    pg_query($conn, 'COPY copied FROM STDIN');
    pg_put_line($conn, "1\nnot a number\n\\.\n");
    same(@pg_end_copy($conn), false, 'end of the copy');
    contains(pg_last_error($conn), 'invalid input syntax for type integer');
    same(one($conn, 'SELECT count(*) FROM copied'), '0');
});

check('reads 100,000 rows through a cursor', function () {
    $conn = connect();
    pg_query($conn, "BEGIN; DECLARE many CURSOR FOR SELECT n, repeat('x', 100) FROM generate_series(1, 100000) AS n");
    $total = 0;
    while (pg_num_rows($rows = pg_query($conn, 'FETCH 5000 FROM many')) > 0) {
        $total += array_sum(pg_fetch_all_columns($rows));
    }
    pg_query($conn, 'COMMIT');
    same($total, 5000050000);
});

check('sends and receives a value of 20 MB', function () {
    $content = str_repeat('0123456789abcdef', 20 * 65536);
    same(one(connect(), 'SELECT $1::text', [$content]) === $content, true, 'content came back');
});

check('cancels a running statement and goes on', function () {
    [$conn, $other] = [connect(), connect()];
    pg_send_query($conn, 'SELECT pg_sleep(60)');
    $active = "SELECT count(*) FROM pg_stat_activity WHERE pid = \$1 AND state = 'active' AND query LIKE '%pg_sleep(60)%'";
    while (one($other, $active, [pg_get_pid($conn)]) === '0') {
        usleep(20000);
    }
    same(pg_cancel_query($conn), true, 'cancel');
    same(one($conn, 'SELECT 1'), '1', 'after the cancel');
});

check('receives notices', function () {
    $conn = connect();
    pg_query($conn, "DO \$\$BEGIN RAISE NOTICE 'first'; RAISE WARNING 'second'; END\$\$");
    $notices = pg_last_notice($conn, PGSQL_NOTICE_ALL);
    contains($notices[0], 'NOTICE:  first');
    contains($notices[1], 'WARNING:  second');
});

check('receives notifications from another session', function () {
    [$conn, $other] = [connect(), connect()];
    pg_query($conn, 'LISTEN php_channel');
    pg_query_params($other, "SELECT pg_notify('php_channel', \$1)", [HORSE]);
    while (!($notification = pg_get_notify($conn, PGSQL_ASSOC))) {
        $sockets = [pg_socket($conn)];
        $none = [];
        stream_select($sockets, $none, $none, 20);
    }
    same([$notification['message'], $notification['payload']], ['php_channel', HORSE]);
    same((int) $notification['pid'], pg_get_pid($other), 'process id of the notifier');
});

check('keeps the session of a persistent connection', function () {
    $conn = pg_pconnect('host=' . getenv('PGHOST') . ' port=' . getenv('PGPORT') . ' dbname=' . getenv('PGDATABASE'));
    same(pg_ping($conn), true, 'ping');
    same(pg_connection_reset($conn), true, 'reset');
    same(one($conn, 'SELECT 1'), '1');
});

foreach ([false, true] as $emulated) {
    $how = $emulated ? 'emulated' : 'real';
    check("PDO: round-trips parameters with $how prepared statements", function () use ($emulated) {
        $pdo = pdo([PDO::ATTR_EMULATE_PREPARES => $emulated]);
        $statement = $pdo->prepare('SELECT :n::int8 AS n, :t::text AS t, :m::text AS m, :b::bool AS b, :d::numeric AS d');
        for ($time = 0; $time < 8; $time++) {
            $statement->bindValue('n', PHP_INT_MAX, PDO::PARAM_INT);
            $statement->bindValue('t', HORSE);
            $statement->bindValue('m', null, PDO::PARAM_NULL);
            $statement->bindValue('b', true, PDO::PARAM_BOOL);
            $statement->bindValue('d', '12345678901234567890.0123');
            $statement->execute();
            $row = $statement->fetch(PDO::FETCH_NUM);
            same($row, [PHP_INT_MAX, HORSE, null, true, '12345678901234567890.0123']);
        }
    });
}

check('PDO: sends and receives bytea', function () {
    $bytes = implode('', array_map('chr', range(0, 255)));
    $statement = pdo()->prepare('SELECT ?::bytea');
    $statement->bindValue(1, $bytes, PDO::PARAM_LOB);
    $statement->execute();
    same(stream_get_contents($statement->fetchColumn()), $bytes);
});

check('PDO: commits, rolls back and reports an error with its SQLSTATE', function () {
    $pdo = pdo();
    $pdo->beginTransaction();
    $pdo->exec("INSERT INTO account VALUES (200, 'pdo', 1)");
    $pdo->commit();
    $pdo->beginTransaction();
    $error = refusal(fn () => $pdo->exec("INSERT INTO account VALUES (200, 'pdo', 1)"));
    same([$error->getCode(), $error->errorInfo[0]], ['23505', '23505']);
    same(refusal(fn () => $pdo->query('SELECT 1'))->getCode(), '25P02');
    $pdo->rollBack();
    same($pdo->query('SELECT owner FROM account WHERE id = 200')->fetchColumn(), 'pdo');
});

check('PDO: reads rows through a scrollable cursor', function () {
    $pdo = pdo();
    $pdo->beginTransaction();
    $statement = $pdo->prepare('SELECT generate_series(1, 10)', [PDO::ATTR_CURSOR => PDO::CURSOR_SCROLL]);
    $statement->execute();
    same($statement->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_LAST), [10], 'last row');
    same($statement->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_FIRST), [1], 'first row');
    $pdo->rollBack();
});

check('PDO: is refused for a wrong password', function () use ($user) {
    contains(refusal(fn () => pdo([], 'not the password'))->getMessage(), "password authentication failed for user \"$user\"");
});
