"""psycopg 3 over TLS, with the libpq that its wheel brings: begun with TLS, and cancelled.

Arguments: port, the authority's certificate."""

import sys
import threading
import time

import psycopg

port, ca = sys.argv[1:3]
assert psycopg.pq.version() >= 170000, "this libpq does not know sslnegotiation"
common = (
    f"host=localhost hostaddr=127.0.0.1 port={port} user=breccia password=secret "
    f"dbname=postgres sslmode=verify-full sslrootcert={ca} channel_binding=require "
)


def cancelled(connection, how):
    """A statement that runs is cancelled, and its session goes on."""
    threading.Timer(0.5, how).start()
    begun = time.monotonic()
    try:
        connection.execute("SELECT pg_sleep(20)")
    except psycopg.errors.QueryCanceled:
        assert time.monotonic() - begun < 10
    else:
        raise AssertionError("it was not cancelled")
    assert connection.execute("SELECT 42").fetchone() == (42,)


for negotiation in ("postgres", "direct"):
    with psycopg.connect(common + f"sslnegotiation={negotiation}", autocommit=True) as connection:
        assert connection.pgconn.ssl_in_use
        rows = connection.execute("SELECT i FROM generate_series(1, 5000) i").fetchall()
        assert rows == [(i,) for i in range(1, 5001)]
        # The old way is in clear, also for a session under TLS.
        cancelled(connection, connection.cancel)
        cancelled(connection, connection.cancel_safe)

print("all good")
