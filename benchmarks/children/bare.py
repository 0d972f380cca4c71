"""Insert finished rows by `executemany` of the bare driver: the least that an ingest can take.

Arguments: the database that has the rows, events a transaction. They go into the empty database
of DATABASE_URL, with the pragmas of dezky/env.py.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from contextlib import closing

from benchmarks.children.report import open_database, say

TABLES = {"audit_auditevent": "seq", "audit_eventkey": "seq"}


def insert(source: str, a_transaction: int) -> None:
    """Read all rows, then insert them as they were appended, and say what that took."""
    rows = {}
    with closing(sqlite3.connect(source)) as database:
        for table, order in TABLES.items():
            rows[table] = database.execute(f"SELECT * FROM {table} ORDER BY {order}").fetchall()  # noqa: S608  # our own names
    commands = {
        table: f"INSERT INTO {table} VALUES ({', '.join('?' * len(found[0]))})"  # noqa: S608  # our own names
        for table, found in rows.items()
    }
    count = len(rows["audit_auditevent"])
    began = time.monotonic()
    database = open_database()
    for at in range(0, count, a_transaction):
        database.execute("BEGIN IMMEDIATE")
        for table, command in commands.items():
            database.executemany(command, rows[table][at : at + a_transaction])
        database.execute("COMMIT")
    database.close()
    say(seconds=time.monotonic() - began, events=count)


if __name__ == "__main__":
    insert(sys.argv[1], int(sys.argv[2]))
