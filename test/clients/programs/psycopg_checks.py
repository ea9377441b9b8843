"""What psycopg 3 does with a server; connection parameters come from libpq's environment variables."""

import os

import psycopg
from checks import HORSE, VALUES, cancel_while, check, has, refused, same
from psycopg import errors, pq

USER = os.environ["PGUSER"]


def connect(**options):
    return psycopg.connect("", **{"autocommit": True, **options})


@check("logs in with a password and acts as its own role")
def _():
    with connect() as conn:
        same(conn.pgconn.used_password, True, "used_password")
        same(conn.execute("SELECT current_user, session_user").fetchone(), (USER, USER))


@check("sees the server's parameters and its own application_name")
def _():
    with connect(application_name="psycopg checks") as conn:
        same(conn.info.parameter_status("server_encoding"), "UTF8", "server_encoding")
        same(conn.info.parameter_status("integer_datetimes"), "on", "integer_datetimes")
        same(conn.info.parameter_status("application_name"), "psycopg checks", "application_name")
        same(conn.info.server_version >= 150000, True, "server_version")
        same(conn.execute("SHOW application_name").fetchone(), ("psycopg checks",))
        conn.execute("SET TimeZone = 'Asia/Tokyo'")
        same(conn.info.timezone.key, "Asia/Tokyo", "TimeZone after SET")


@check("is refused with 28P01 for a wrong password")
def _():
    error = refused(psycopg.OperationalError, lambda: connect(password="not the password"))
    has(error, f'password authentication failed for user "{USER}"')


@check("is refused with the same words for an unknown user")
def _():
    error = refused(psycopg.OperationalError, lambda: connect(user="nobody_of_this_name"))
    has(error, 'password authentication failed for user "nobody_of_this_name"')


def round_trip(binary):
    with connect() as conn:
        cur = conn.cursor(binary=binary)
        for type_name, value in VALUES:
            placeholder = "%b" if binary and not isinstance(value, (list, type(None))) else "%s"
            cur.execute(f"SELECT {placeholder}::{type_name}", (value,))
            same(cur.fetchone()[0], value, type_name)


@check("round-trips parameters of many types")
def _():
    round_trip(binary=False)


@check("round-trips parameters of many types in binary")
def _():
    round_trip(binary=True)


@check("repeats a prepared statement")
def _():
    with connect() as conn:
        for number in range(20):
            row = conn.execute("SELECT %s::int + 1, %s::text", (number, HORSE), prepare=True).fetchone()
            same(row, (number + 1, HORSE))
        same(conn.execute("SELECT count(*) FROM pg_prepared_statements").fetchone(), (1,), "statements prepared")


@check("keeps what it commits and loses what it rolls back")
def _():
    with connect(autocommit=False) as conn, connect() as other:
        conn.execute("INSERT INTO account VALUES (%s, %s, %s)", (100, "kept", 1))
        same(other.execute("SELECT count(*) FROM account WHERE id = 100").fetchone(), (0,), "before the commit")
        same(conn.info.transaction_status, pq.TransactionStatus.INTRANS, "status")
        conn.commit()
        conn.execute("DELETE FROM account WHERE id = 100")
        conn.rollback()
        same(conn.info.transaction_status, pq.TransactionStatus.IDLE, "status")
        same(other.execute("SELECT owner FROM account WHERE id = 100").fetchone(), ("kept",))


def nested_duplicate(conn):
    with conn.transaction():
        conn.execute("INSERT INTO account VALUES (110, 'inner', 1)")


@check("returns to a savepoint")
def _():
    with connect() as conn:
        with conn.transaction():
            conn.execute("INSERT INTO account VALUES (110, 'outer', 1)")
            refused(errors.UniqueViolation, lambda: nested_duplicate(conn))
            conn.execute("UPDATE account SET balance = 2 WHERE id = 110")
        same(conn.execute("SELECT balance FROM account WHERE id = 110").fetchone(), (2,))


@check("is refused with 25P02 after an error until it rolls back")
def _():
    with connect(autocommit=False) as conn:
        refused(errors.DivisionByZero, lambda: conn.execute("SELECT 1/0"))
        same(conn.info.transaction_status, pq.TransactionStatus.INERROR, "status")
        error = refused(errors.InFailedSqlTransaction, lambda: conn.execute("SELECT 1"))
        same(error.sqlstate, "25P02")
        conn.rollback()
        same(conn.execute("SELECT 1").fetchone(), (1,))


@check("gets every field of a constraint violation")
def _():
    with connect() as conn:
        diag = refused(errors.UniqueViolation, lambda: conn.execute("INSERT INTO account VALUES (1, 'x', 1)")).diag
        same((diag.severity, diag.severity_nonlocalized, diag.sqlstate), ("ERROR", "ERROR", "23505"))
        same((diag.schema_name, diag.table_name, diag.constraint_name), ("public", "account", "account_pkey"))
        same(diag.message_detail, "Key (id)=(1) already exists.")
        same(bool(diag.source_file and diag.source_line and diag.source_function), True, "source fields")
        diag = refused(errors.NotNullViolation, lambda: conn.execute("INSERT INTO account VALUES (2)")).diag
        same((diag.sqlstate, diag.column_name), ("23502", "owner"))


@check("gets the position of a syntax error")
def _():
    with connect() as conn:
        error = refused(errors.SyntaxError, lambda: conn.execute("SELECT 1,, 2"))
        same((error.sqlstate, error.diag.statement_position), ("42601", "10"))


@check("gets detail and hint of a raised error")
def _():
    with connect() as conn:
        statement = "DO $$BEGIN RAISE EXCEPTION 'no' USING ERRCODE='22023', DETAIL='Why.', HINT='Do.'; END$$"
        error = refused(errors.InvalidParameterValue, lambda: conn.execute(statement))
        same((error.diag.message_primary, error.diag.message_detail, error.diag.message_hint), ("no", "Why.", "Do."))
        has(error.diag.context, "PL/pgSQL function inline_code_block")


@check("copies rows in and out")
def _():
    with connect() as conn:
        cur = conn.cursor()
        rows = [(n, HORSE if n % 2 else None) for n in range(5000)]
        cur.execute("CREATE TEMP TABLE copied (id int, name text)")
        with cur.copy("COPY copied FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
        same(cur.rowcount, 5000, "rows copied in")
        with cur.copy("COPY copied TO STDOUT") as copy:
            copy.set_types(["int4", "text"])
            same(list(copy.rows()), rows, "rows copied out")


@check("copies rows in and out in binary")
def _():
    with connect() as conn:
        cur = conn.cursor()
        cur.execute("CREATE TEMP TABLE copied (id int8, name text, amount numeric, content bytea)")
        rows = [(n, HORSE, VALUES[1][1], bytes(range(256))) for n in range(1000)]
        with cur.copy("COPY copied FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["int8", "text", "numeric", "bytea"])
            for row in rows:
                copy.write_row(row)
        with cur.copy("COPY copied TO STDOUT (FORMAT BINARY)") as copy:
            copy.set_types(["int8", "text", "numeric", "bytea"])
            same(list(copy.rows()), rows, "rows copied out")


def copy_in(cur, text):
    with cur.copy("COPY copied FROM STDIN") as copy:
        copy.write(text)


def abandon_copy(cur):
    with cur.copy("COPY copied FROM STDIN") as copy:
        copy.write("1\n")
        raise errors.QueryCanceled("the client gives up")


@check("goes on after a failed copy")
def _():
    with connect() as conn:
        cur = conn.cursor()
        cur.execute("CREATE TEMP TABLE copied (id int)")
        refused(errors.InvalidTextRepresentation, lambda: copy_in(cur, "1\nnot a number\n"))
        refused(errors.QueryCanceled, lambda: abandon_copy(cur))
        same(cur.execute("SELECT count(*) FROM copied").fetchone(), (0,))


@check("reads 100,000 rows through a cursor")
def _():
    with connect(autocommit=False) as conn:
        cur = conn.cursor(name="many")
        cur.itersize = 1000
        cur.execute("SELECT n, repeat('x', 100) FROM generate_series(1, 100000) AS n")
        same(sum(row[0] for row in cur), 5000050000, "sum")


@check("streams 100,000 rows in single-row mode")
def _():
    with connect() as conn:
        total = sum(row[0] for row in conn.cursor().stream("SELECT generate_series(1, 100000)"))
        same(total, 5000050000, "sum")


@check("sends and receives a value of 20 MB")
def _():
    with connect() as conn:
        content = bytes(range(256)) * (20 * 4096)
        cur = conn.cursor(binary=True)
        row = cur.execute("SELECT length(%b::bytea), %b::bytea", (content, content)).fetchone()
        same(row[0], len(content), "length")
        same(row[1] == content, True, "content came back")


@check("cancels a running statement and goes on")
def _():
    with connect() as conn, connect() as other:
        active = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND state = 'active' AND query LIKE '%%pg_sleep%%'"
        pid = conn.info.backend_pid
        thread = cancel_while(lambda: other.execute(active, (pid,)).fetchone()[0] == 1, conn.cancel)
        error = refused(errors.QueryCanceled, lambda: conn.execute("SELECT pg_sleep(60)"))
        thread.join()
        same((error.sqlstate, error.diag.message_primary), ("57014", "canceling statement due to user request"))
        same(conn.execute("SELECT 1").fetchone(), (1,))


@check("receives notices")
def _():
    with connect() as conn:
        notices = []
        conn.add_notice_handler(lambda diag: notices.append((diag.severity, diag.sqlstate, diag.message_primary)))
        conn.execute("DO $$BEGIN RAISE NOTICE 'first'; RAISE WARNING 'second'; END$$")
        same(notices, [("NOTICE", "00000", "first"), ("WARNING", "01000", "second")])


@check("receives notifications from another session")
def _():
    with connect() as conn, connect() as other:
        conn.execute("LISTEN psycopg_channel")
        other.execute("SELECT pg_notify('psycopg_channel', %s)", (HORSE,))
        notification = next(conn.notifies())
        same((notification.channel, notification.payload), ("psycopg_channel", HORSE))
        same(notification.pid, other.info.backend_pid, "process id of the notifier")


@check("pipelines statements and gets each result in order")
def _():
    with connect() as conn:
        with conn.pipeline():
            cursors = [conn.execute("SELECT %s::int", (n,)) for n in range(500)]
            same([cur.fetchone()[0] for cur in cursors], list(range(500)))


def fail_in_pipeline(conn):
    # Leaving the block syncs; psycopg raises there, or earlier when it has read the error by then.
    with conn.pipeline() as pipeline:
        conn.execute("INSERT INTO piped VALUES (1)")
        pipeline.sync()
        conn.execute("INSERT INTO piped VALUES (1/%s::int)", (0,))
        conn.execute("INSERT INTO piped VALUES (2)")


@check("loses only the pipelined statements between an error and the next sync")
def _():
    with connect() as conn:
        conn.execute("CREATE TEMP TABLE piped (id int)")
        refused(errors.DivisionByZero, lambda: fail_in_pipeline(conn))
        conn.execute("INSERT INTO piped VALUES (3)")
        same(conn.execute("SELECT array_agg(id) FROM piped").fetchone(), ([1, 3],), "rows")


@check("runs executemany in one go and returns its rows")
def _():
    with connect() as conn:
        cur = conn.cursor()
        cur.execute("CREATE TEMP TABLE many (id int)")
        cur.executemany("INSERT INTO many VALUES (%s) RETURNING id", [(n,) for n in range(1000)], returning=True)
        same(cur.fetchone(), (0,))
        same(conn.execute("SELECT count(*), sum(id) FROM many").fetchone(), (1000, 499500))


@check("runs several statements in one string and gets every result")
def _():
    with connect() as conn:
        cur = psycopg.ClientCursor(conn)
        cur.execute("SELECT 1; SELECT 2; CREATE TEMP TABLE third (id int)")
        same(cur.fetchone(), (1,))
        cur.nextset()
        same(cur.fetchone(), (2,))
        cur.nextset()
        same(cur.statusmessage, "CREATE TABLE")
