"""Runs named checks and prints one JSON line for each: what every Python client program shares."""

import json
import threading
import time
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

HORSE = "P\u0159\u00edli\u0161 \u017elu\u0165ou\u010dk\u00fd k\u016f\u0148 \U0001f40e ' \" \\ %s $1"

# (SQL type, value): each must come back equal.
VALUES = [
    ("int8", -9223372036854775807),
    ("numeric", Decimal("12345678901234567890.012345678900")),
    ("float8", 0.1),
    ("bool", True),
    ("text", HORSE),
    ("text", ""),
    ("text", None),
    ("bytea", bytes(range(256))),
    ("int8[]", [1, None, -3]),
    ("text[]", ["a", 'b,"c"', None, "", HORSE]),
    ("timestamptz", datetime(2024, 2, 29, 23, 59, 59, 123456, tzinfo=timezone(timedelta(hours=5, minutes=30)))),
    ("date", date(1999, 12, 31)),
    ("uuid", UUID("6b1f4f9e-2f5a-4c1e-9d43-0b8f5b1d7a10")),
]


def report(name, error=None):
    line = {"check": name, "ok": error is None}
    if error is not None:
        line["message"] = f"{type(error).__name__}: {error}"
    print(json.dumps(line), flush=True)


def check(name):
    """Runs the decorated function at once and reports it under this name."""

    def run(action):
        try:
            action()
        except Exception as error:
            report(name, error)
        else:
            report(name)

    return run


def same(actual, expected, what="value"):
    if actual != expected:
        raise AssertionError(f"{what}: got {actual!r:.300}, expected {expected!r:.300}")


def has(text, part):
    if part not in str(text):
        raise AssertionError(f"{part!r} is not in {text!r:.300}")


def refused(error_class, action):
    """The error that the action raises; the check fails when it raises none of this class."""
    try:
        action()
    except error_class as error:
        return error
    raise AssertionError("was not refused")


def cancel_while(is_running, cancel):
    """Calls cancel from another thread as soon as is_running() says that the statement is there."""

    def watch():
        deadline = time.monotonic() + 20
        while not is_running() and time.monotonic() < deadline:
            time.sleep(0.02)
        cancel()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread
