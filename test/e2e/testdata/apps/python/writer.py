"""Adds rows to a database that other containers write to, too: FILE MODE NAME ROWS."""
import sqlite3
import sys

file, mode, name, rows = sys.argv[1:]
db = sqlite3.connect(file, timeout=60, isolation_level=None)
db.execute(f"PRAGMA journal_mode = {mode}")
db.execute("CREATE TABLE IF NOT EXISTS entries (n INTEGER PRIMARY KEY, writer TEXT)")
db.execute("CREATE TABLE IF NOT EXISTS total (n INTEGER)")
for _ in range(int(rows)):
    # What is read is the base of what is written, so a lock that does not hold shows.
    db.execute("BEGIN IMMEDIATE")
    (n,) = db.execute("SELECT count(*) FROM entries").fetchone()
    db.execute("INSERT INTO entries VALUES (?, ?)", (n + 1, name))
    db.execute("DELETE FROM total")
    db.execute("INSERT INTO total VALUES (?)", (n + 1,))
    db.execute("COMMIT")
print("written")
