"""PyMySQL as it comes, with autocommit off, under READ COMMITTED: each read is a transaction.

Prints how many reads it has done, and their latencies' median and 99th percentile in milliseconds.
"""

import random
import sys
import time

import pymysql

port, user, password, database, rows, seconds = sys.argv[1:]
connection = pymysql.connect(
    host="127.0.0.1", port=int(port), user=user, password=password, database=database,
    init_command="SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
)
cursor = connection.cursor()
latencies = []
end = time.monotonic() + float(seconds)
while (begun := time.monotonic()) < end:
    cursor.execute("SELECT c FROM sbtest1 WHERE id = %s", (random.randint(1, int(rows)),))
    cursor.fetchall()
    connection.commit()
    latencies.append((time.monotonic() - begun) * 1000)
latencies.sort()
count = len(latencies)
print(count, latencies[count // 2], latencies[min(count * 99 // 100, count - 1)])
