"""What psycopg2 does with a server; connection parameters come from libpq's environment variables."""

import io
import os
import select

import psycopg2
import psycopg2.extensions as ext
import psycopg2.extras
from checks import HORSE, VALUES, cancel_while, check, has, refused, same
from psycopg2 import errors

USER = os.environ["PGUSER"]

psycopg2.extras.register_uuid()


def connect(autocommit=True, **options):
    conn = psycopg2.connect("", **options)
    conn.autocommit = autocommit
    return conn


def run(conn, statement, parameters=None):
    cur = conn.cursor()
    cur.execute(statement, parameters)
    return cur.fetchone() if cur.description else None


@check("logs in with a password and acts as its own role")
def _():
    conn = connect()
    same(conn.info.used_password, True, "used_password")
    same(run(conn, "SELECT current_user, session_user"), (USER, USER))
    conn.close()


@check("sees the server's parameters and its own application_name")
def _():
    conn = connect(application_name="psycopg2 checks")
    same(conn.get_parameter_status("server_encoding"), "UTF8", "server_encoding")
    same(conn.get_parameter_status("standard_conforming_strings"), "on", "standard_conforming_strings")
    same(conn.info.application_name if hasattr(conn.info, "application_name") else "psycopg2 checks", "psycopg2 checks")
    same(run(conn, "SHOW application_name"), ("psycopg2 checks",))
    conn.set_client_encoding("LATIN2")
    same(conn.get_parameter_status("client_encoding"), "LATIN2", "client_encoding after SET")
    same(run(conn, "SELECT %s", ("žluť",)), ("žluť",), "text in LATIN2")
    conn.close()


@check("is refused with 28P01 for a wrong password")
def _():
    error = refused(psycopg2.OperationalError, lambda: connect(password="not the password"))
    has(error, f'password authentication failed for user "{USER}"')


@check("is refused with the same words for an unknown user")
def _():
    error = refused(psycopg2.OperationalError, lambda: connect(user="nobody_of_this_name"))
    has(error, 'password authentication failed for user "nobody_of_this_name"')


@check("round-trips parameters of many types")
def _():
    conn = connect()
    for type_name, value in VALUES:
        got = run(conn, f"SELECT %s::{type_name}", (value,))[0]
        same(bytes(got) if isinstance(got, memoryview) else got, value, type_name)
    conn.close()


@check("repeats a prepared statement")
def _():
    conn = connect()
    run(conn, "PREPARE addition (int, text) AS SELECT $1 + 1, $2")
    for number in range(20):
        same(run(conn, "EXECUTE addition (%s, %s)", (number, HORSE)), (number + 1, HORSE))
    run(conn, "DEALLOCATE addition")
    refused(errors.InvalidSqlStatementName, lambda: run(conn, "EXECUTE addition (1, '')"))
    conn.close()


@check("keeps what it commits and loses what it rolls back")
def _():
    conn, other = connect(autocommit=False), connect()
    run(conn, "INSERT INTO account VALUES (%s, %s, %s)", (100, "kept", 1))
    same(conn.info.transaction_status, ext.TRANSACTION_STATUS_INTRANS, "status")
    same(run(other, "SELECT count(*) FROM account WHERE id = 100"), (0,), "before the commit")
    conn.commit()
    run(conn, "DELETE FROM account WHERE id = 100")
    conn.rollback()
    same(conn.info.transaction_status, ext.TRANSACTION_STATUS_IDLE, "status")
    same(run(other, "SELECT owner FROM account WHERE id = 100"), ("kept",))
    conn.close()
    other.close()


@check("returns to a savepoint")
def _():
    conn = connect(autocommit=False)
    run(conn, "INSERT INTO account VALUES (110, 'outer', 1)")
    run(conn, "SAVEPOINT before_duplicate")
    refused(errors.UniqueViolation, lambda: run(conn, "INSERT INTO account VALUES (110, 'inner', 1)"))
    run(conn, "ROLLBACK TO SAVEPOINT before_duplicate")
    run(conn, "UPDATE account SET balance = 2 WHERE id = 110")
    conn.commit()
    same(run(conn, "SELECT balance FROM account WHERE id = 110"), (2,))
    conn.close()


@check("is refused with 25P02 after an error until it rolls back")
def _():
    conn = connect(autocommit=False)
    refused(errors.DivisionByZero, lambda: run(conn, "SELECT 1/0"))
    same(conn.info.transaction_status, ext.TRANSACTION_STATUS_INERROR, "status")
    same(refused(errors.InFailedSqlTransaction, lambda: run(conn, "SELECT 1")).pgcode, "25P02")
    conn.rollback()
    same(run(conn, "SELECT 1"), (1,))
    conn.close()


@check("gets every field of a constraint violation")
def _():
    conn = connect()
    diag = refused(errors.UniqueViolation, lambda: run(conn, "INSERT INTO account VALUES (1, 'x', 1)")).diag
    same((diag.severity, diag.severity_nonlocalized, diag.sqlstate), ("ERROR", "ERROR", "23505"))
    same((diag.schema_name, diag.table_name, diag.constraint_name), ("public", "account", "account_pkey"))
    same(diag.message_detail, "Key (id)=(1) already exists.")
    diag = refused(errors.NotNullViolation, lambda: run(conn, "INSERT INTO account VALUES (2)")).diag
    same((diag.sqlstate, diag.column_name), ("23502", "owner"))
    conn.close()


@check("gets the position of a syntax error")
def _():
    conn = connect()
    error = refused(errors.SyntaxError, lambda: run(conn, "SELECT 1,, 2"))
    same((error.pgcode, error.diag.statement_position), ("42601", "10"))
    conn.close()


@check("gets detail and hint of a raised error")
def _():
    conn = connect()
    statement = "DO $$BEGIN RAISE EXCEPTION 'no' USING ERRCODE='22023', DETAIL='Why.', HINT='Do.'; END$$"
    diag = refused(errors.InvalidParameterValue, lambda: run(conn, statement)).diag
    same((diag.message_primary, diag.message_detail, diag.message_hint), ("no", "Why.", "Do."))
    conn.close()


@check("copies rows in and out")
def _():
    conn = connect()
    cur = conn.cursor()
    text = "".join(f"{n}\trow {n}\n" for n in range(5000))
    cur.execute("CREATE TEMP TABLE copied (id int, name text)")
    cur.copy_expert("COPY copied FROM STDIN", io.StringIO(text))
    same(cur.rowcount, 5000, "rows copied in")
    out = io.StringIO()
    cur.copy_expert("COPY copied TO STDOUT", out)
    same(out.getvalue() == text, True, "the text came back")
    conn.close()


@check("goes on after a failed copy")
def _():
    conn = connect()
    cur = conn.cursor()
    cur.execute("CREATE TEMP TABLE copied (id int)")
    failing = io.StringIO("1\nnot a number\n")
    refused(errors.InvalidTextRepresentation, lambda: cur.copy_expert("COPY copied FROM STDIN", failing))

    class Broken:
        def read(self, size):
            raise OSError("the file broke")

    # psycopg2 sends CopyFail with the text of the exception.
    error = refused(psycopg2.Error, lambda: cur.copy_expert("COPY copied FROM STDIN", Broken()))
    same(error.pgcode, "57014")
    same(run(conn, "SELECT count(*) FROM copied"), (0,))
    conn.close()


@check("reads 100,000 rows through a cursor")
def _():
    conn = connect(autocommit=False)
    cur = conn.cursor(name="many")
    cur.itersize = 1000
    cur.execute("SELECT n, repeat('x', 100) FROM generate_series(1, 100000) AS n")
    same(sum(row[0] for row in cur), 5000050000, "sum")
    conn.close()


@check("sends and receives a value of 20 MB")
def _():
    conn = connect()
    content = bytes(range(256)) * (20 * 4096)
    row = run(conn, "SELECT %s::bytea", (content,))
    same(bytes(row[0]) == content, True, "content came back")
    conn.close()


@check("cancels a running statement and goes on")
def _():
    conn, other = connect(), connect()
    pid = conn.info.backend_pid
    active = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND state = 'active' AND query LIKE '%%pg_sleep%%'"
    thread = cancel_while(lambda: run(other, active, (pid,))[0] == 1, conn.cancel)
    error = refused(errors.QueryCanceled, lambda: run(conn, "SELECT pg_sleep(60)"))
    thread.join()
    same((error.pgcode, error.diag.message_primary), ("57014", "canceling statement due to user request"))
    same(run(conn, "SELECT 1"), (1,))
    conn.close()
    other.close()


@check("receives notices")
def _():
    conn = connect()
    run(conn, "DO $$BEGIN RAISE NOTICE 'first'; RAISE WARNING 'second'; END$$")
    same(list(conn.notices)[0], "NOTICE:  first\n")
    has(list(conn.notices)[1], "WARNING:  second\n")
    conn.close()


@check("receives notifications from another session")
def _():
    conn, other = connect(), connect()
    run(conn, "LISTEN psycopg2_channel")
    run(other, "SELECT pg_notify('psycopg2_channel', %s)", (HORSE,))
    while not conn.notifies:
        select.select([conn], [], [], 20)
        conn.poll()
    same((conn.notifies[0].channel, conn.notifies[0].payload), ("psycopg2_channel", HORSE))
    same(conn.notifies[0].pid, other.info.backend_pid, "process id of the notifier")
    conn.close()
    other.close()


@check("sends a page of rows with execute_values")
def _():
    conn = connect()
    cur = conn.cursor()
    cur.execute("CREATE TEMP TABLE many (id int, name text)")
    rows = [(n, HORSE) for n in range(1000)]
    psycopg2.extras.execute_values(cur, "INSERT INTO many VALUES %s", rows, page_size=100)
    same(run(conn, "SELECT count(*), sum(id) FROM many"), (1000, 499500))
    conn.close()


@check("stores a large object and reads it back")
def _():
    conn = connect(autocommit=False)
    stored = conn.lobject(0, "wb")
    stored.write(bytes(range(256)) * 1000)
    same(conn.lobject(stored.oid, "rb").read() == bytes(range(256)) * 1000, True, "content came back")
    conn.rollback()
    conn.close()


@check("works asynchronously without blocking its thread")
def _():
    conn = psycopg2.connect("", async_=1)
    psycopg2.extras.wait_select(conn)
    cur = conn.cursor()
    cur.execute("SELECT pg_sleep(0.05), 7")
    same(conn.isexecuting(), True, "is executing")
    psycopg2.extras.wait_select(conn)
    same(cur.fetchone()[1], 7)
    conn.close()
