"""What asyncpg does with a server: extended protocol and binary formats only, without libpq."""

import asyncio
import io
import os
from decimal import Decimal

import asyncpg
from checks import HORSE, VALUES, report, same

USER = os.environ["PGUSER"]
CHECKS = []


def check(name):
    def add(action):
        CHECKS.append((name, action))

    return add


async def refused(error_class, awaitable):
    try:
        await awaitable
    except error_class as error:
        return error
    raise AssertionError("was not refused")


@check("logs in with a password and acts as its own role")
async def _(conn, _other):
    same(tuple(await conn.fetchrow("SELECT current_user::text, session_user::text")), (USER, USER))


@check("sees the server's parameters and its own application_name")
async def _(conn, _other):
    named = await asyncpg.connect(server_settings={"application_name": "asyncpg checks", "search_path": "pg_catalog"})
    same(named.get_settings().application_name, "asyncpg checks", "application_name")
    same(named.get_settings().server_encoding, "UTF8", "server_encoding")
    same(await named.fetchval("SHOW application_name"), "asyncpg checks")
    same(await named.fetchval("SHOW search_path"), "pg_catalog", "search_path")
    same(named.get_server_version().major >= 15, True, "server version")
    await named.close()


@check("is refused with 28P01 for a wrong password")
async def _(conn, _other):
    error = await refused(asyncpg.InvalidPasswordError, asyncpg.connect(password="not the password"))
    same((error.sqlstate, str(error)), ("28P01", f'password authentication failed for user "{USER}"'))


@check("is refused with the same words for an unknown user")
async def _(conn, _other):
    error = await refused(asyncpg.InvalidPasswordError, asyncpg.connect(user="nobody_of_this_name"))
    same(str(error), 'password authentication failed for user "nobody_of_this_name"')


@check("round-trips parameters of many types in binary")
async def _(conn, _other):
    for type_name, value in VALUES:
        same(await conn.fetchval(f"SELECT $1::{type_name}", value), value, type_name)
    same(await conn.fetchval("SELECT $1::int[][]", [[1, 2], [3, 4]]), [[1, 2], [3, 4]], "int[][]")


@check("repeats a prepared statement")
async def _(conn, _other):
    statement = await conn.prepare("SELECT $1::int + 1, $2::text")
    same([p.name for p in statement.get_parameters()], ["int4", "text"], "described parameters")
    for number in range(20):
        same(tuple(await statement.fetchrow(number, HORSE)), (number + 1, HORSE))


@check("introspects a composite type")
async def _(conn, _other):
    row = await conn.fetchval("SELECT account FROM account WHERE id = 1")
    same((row["id"], row["owner"], row["balance"]), (1, "first", Decimal("10.00")))


@check("keeps what it commits and loses what it rolls back")
async def _(conn, other):
    async with conn.transaction(isolation="repeatable_read"):
        await conn.execute("INSERT INTO account VALUES ($1, $2, $3)", 100, "kept", 1)
        same(await other.fetchval("SELECT count(*) FROM account WHERE id = 100"), 0, "before the commit")
        same(conn.is_in_transaction(), True, "is in a transaction")
    transaction = conn.transaction()
    await transaction.start()
    await conn.execute("DELETE FROM account WHERE id = 100")
    await transaction.rollback()
    same(conn.is_in_transaction(), False, "is in a transaction")
    same(await other.fetchval("SELECT owner FROM account WHERE id = 100"), "kept")


@check("returns to a savepoint")
async def _(conn, _other):
    async with conn.transaction():
        await conn.execute("INSERT INTO account VALUES (110, 'outer', 1)")
        inner = conn.transaction()
        await inner.start()
        await refused(asyncpg.UniqueViolationError, conn.execute("INSERT INTO account VALUES (110, 'inner', 1)"))
        await inner.rollback()
        await conn.execute("UPDATE account SET balance = 2 WHERE id = 110")
    same(await conn.fetchval("SELECT balance FROM account WHERE id = 110"), 2)


@check("is refused with 25P02 after an error until it rolls back")
async def _(conn, _other):
    transaction = conn.transaction()
    await transaction.start()
    await refused(asyncpg.DivisionByZeroError, conn.fetch("SELECT 1/0"))
    error = await refused(asyncpg.InFailedSQLTransactionError, conn.fetch("SELECT 1"))
    same(error.sqlstate, "25P02")
    await transaction.rollback()
    same(await conn.fetchval("SELECT 1"), 1)


@check("gets every field of a constraint violation")
async def _(conn, _other):
    error = await refused(asyncpg.UniqueViolationError, conn.execute("INSERT INTO account VALUES (1, 'x', 1)"))
    same((error.severity, error.sqlstate), ("ERROR", "23505"))
    same((error.schema_name, error.table_name, error.constraint_name), ("public", "account", "account_pkey"))
    same(error.detail, "Key (id)=(1) already exists.")
    error = await refused(asyncpg.NotNullViolationError, conn.execute("INSERT INTO account VALUES (2)"))
    same((error.sqlstate, error.column_name), ("23502", "owner"))


@check("gets the position of a syntax error")
async def _(conn, _other):
    error = await refused(asyncpg.PostgresSyntaxError, conn.fetch("SELECT 1,, 2"))
    same((error.sqlstate, error.position), ("42601", "10"))


@check("gets detail and hint of a raised error")
async def _(conn, _other):
    statement = "DO $$BEGIN RAISE EXCEPTION 'no' USING ERRCODE='22023', DETAIL='Why.', HINT='Do.'; END$$"
    error = await refused(asyncpg.InvalidParameterValueError, conn.execute(statement))
    same((error.message, error.detail, error.hint), ("no", "Why.", "Do."))


@check("copies rows in and out in binary")
async def _(conn, _other):
    await conn.execute("CREATE TEMP TABLE copied (id int8, name text, amount numeric, content bytea)")
    rows = [(n, HORSE, Decimal("1.50"), bytes(range(256))) for n in range(2000)]
    same(await conn.copy_records_to_table("copied", records=rows), "COPY 2000")
    out = io.BytesIO()
    same(await conn.copy_from_table("copied", output=out, format="binary"), "COPY 2000")
    same(out.getvalue()[:11], b"PGCOPY\n\xff\r\n\x00", "signature of the binary format")
    await conn.execute("CREATE TEMP TABLE copied_again (LIKE copied)")
    out.seek(0)
    same(await conn.copy_to_table("copied_again", source=out, format="binary"), "COPY 2000")
    same(await conn.fetchval("SELECT count(*) FROM (TABLE copied EXCEPT TABLE copied_again) AS difference"), 0)


@check("goes on after a failed copy")
async def _(conn, _other):
    await conn.execute("CREATE TEMP TABLE failing (id int)")
    source = io.BytesIO(b"1\nnot a number\n")
    await refused(asyncpg.InvalidTextRepresentationError, conn.copy_to_table("failing", source=source))
    same(await conn.fetchval("SELECT count(*) FROM failing"), 0)


@check("reads 100,000 rows through a cursor")
async def _(conn, _other):
    total = 0
    async with conn.transaction():
        statement = "SELECT n, repeat('x', 100) FROM generate_series(1, $1::int) AS n"
        async for row in conn.cursor(statement, 100000, prefetch=1000):
            total += row[0]
    same(total, 5000050000, "sum")


@check("sends and receives a value of 20 MB")
async def _(conn, _other):
    content = bytes(range(256)) * (20 * 4096)
    same(await conn.fetchval("SELECT $1::bytea", content) == content, True, "content came back")


@check("cancels a running statement and goes on")
async def _(conn, other):
    # Cancelling the task makes asyncpg send a CancelRequest on a connection of its own.
    task = asyncio.ensure_future(conn.execute("SELECT pg_sleep(60)"))
    active = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND state = 'active' AND query LIKE '%pg_sleep%'"
    while await other.fetchval(active, conn.get_server_pid()) == 0:
        await asyncio.sleep(0.02)
    task.cancel()
    await refused(asyncio.CancelledError, task)
    same(await conn.fetchval("SELECT 1"), 1)
    await refused(asyncio.TimeoutError, conn.execute("SELECT pg_sleep(60)", timeout=0.2))
    same(await conn.fetchval("SELECT 2"), 2)


@check("is cancelled by pg_cancel_backend with the process id that it was told")
async def _(conn, other):
    task = asyncio.ensure_future(conn.execute("SELECT pg_sleep(60)"))
    active = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND query LIKE '%pg_sleep(60)%' AND state = 'active'"
    while not task.done():
        await other.fetch(active, conn.get_server_pid())
        await asyncio.sleep(0.02)
    error = await refused(asyncpg.QueryCanceledError, task)
    same((error.sqlstate, str(error)), ("57014", "canceling statement due to user request"))


@check("receives notices")
async def _(conn, _other):
    notices = []
    conn.add_log_listener(lambda _conn, message: notices.append((message.severity, message.sqlstate, message.message)))
    await conn.execute("DO $$BEGIN RAISE NOTICE 'first'; RAISE WARNING 'second'; END$$")
    await asyncio.sleep(0)
    same(notices, [("NOTICE", "00000", "first"), ("WARNING", "01000", "second")])


@check("receives notifications from another session")
async def _(conn, other):
    received = asyncio.get_running_loop().create_future()
    await conn.add_listener("asyncpg_channel", lambda _conn, pid, _channel, payload: received.set_result((pid, payload)))
    await other.execute("SELECT pg_notify('asyncpg_channel', $1)", HORSE)
    same(await asyncio.wait_for(received, 20), (other.get_server_pid(), HORSE))


@check("pipelines executemany in one transaction")
async def _(conn, _other):
    await conn.execute("CREATE TEMP TABLE many (id int PRIMARY KEY)")
    await conn.executemany("INSERT INTO many VALUES ($1)", [(n,) for n in range(10000)])
    same(tuple(await conn.fetchrow("SELECT count(*), sum(id) FROM many")), (10000, 49995000))
    repeated = [(n,) for n in range(20000, 20500)] + [(1,)]
    await refused(asyncpg.UniqueViolationError, conn.executemany("INSERT INTO many VALUES ($1)", repeated))
    same(await conn.fetchval("SELECT count(*) FROM many"), 10000, "rows after a failed executemany")


@check("runs several statements in one string")
async def _(conn, _other):
    status = await conn.execute("CREATE TEMP TABLE one (id int); INSERT INTO one VALUES (1), (2)")
    same(status, "INSERT 0 2")


@check("resets a connection that goes back to its pool")
async def _(_conn, _other):
    async with asyncpg.create_pool(min_size=1, max_size=1) as pool:
        async with pool.acquire() as conn:
            await conn.execute("SET work_mem = '7MB'")
            await conn.execute("LISTEN left_behind")
        async with pool.acquire() as conn:
            same(await conn.fetchval("SHOW work_mem") != "7MB", True, "work_mem is reset")
            same(await conn.fetch("SELECT pg_listening_channels()"), [], "channels listened to")


async def main():
    for name, action in CHECKS:
        conn, other = await asyncpg.connect(), await asyncpg.connect()
        try:
            await asyncio.wait_for(action(conn, other), 25)
        except (Exception, asyncio.CancelledError) as error:
            report(name, error)
        else:
            report(name)
        finally:
            conn.terminate()
            other.terminate()


asyncio.run(main())
