"""Logs in with a token through a libpq of PostgreSQL 18, and prints whom the session acts as and where libpq was told to get a token.

Arguments: the library, a connection string. The token is in the environment, as TOKEN.
"""

import ctypes
import os
import sys

PQAUTHDATA_OAUTH_BEARER_TOKEN = 1


class BearerRequest(ctypes.Structure):
    """PGoauthBearerRequest of libpq-fe.h."""

    _fields_ = [
        ("openid_configuration", ctypes.c_char_p),
        ("scope", ctypes.c_char_p),
        ("async_callback", ctypes.c_void_p),
        ("cleanup", ctypes.c_void_p),
        ("token", ctypes.c_char_p),
        ("user", ctypes.c_void_p),
    ]


libpq = ctypes.CDLL(sys.argv[1])
for name, result in (
    ("PQconnectdb", ctypes.c_void_p),
    ("PQexec", ctypes.c_void_p),
    ("PQerrorMessage", ctypes.c_char_p),
    ("PQgetvalue", ctypes.c_char_p),
):
    getattr(libpq, name).restype = result

token = os.environ["TOKEN"].encode()
asked = []


@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
def give_token(kind, connection, data):
    if kind != PQAUTHDATA_OAUTH_BEARER_TOKEN:
        return 0
    request = ctypes.cast(data, ctypes.POINTER(BearerRequest)).contents
    asked.append(" ".join(part.decode() for part in (request.openid_configuration, request.scope) if part))
    request.token = token
    return 1


libpq.PQsetAuthDataHook(give_token)
connection = ctypes.c_void_p(libpq.PQconnectdb(sys.argv[2].encode()))
if libpq.PQstatus(connection) != 0:
    sys.exit(libpq.PQerrorMessage(connection).decode())
result = ctypes.c_void_p(libpq.PQexec(connection, b"SELECT session_user"))
print(libpq.PQgetvalue(result, 0, 0).decode())
print("\n".join(asked))
