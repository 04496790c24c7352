"""Tells what is in the databases that writer.py has written: FILE..."""
import sqlite3
import sys

for file in sys.argv[1:]:
    db = sqlite3.connect(file)
    (mode,) = db.execute("PRAGMA journal_mode").fetchone()
    (check,) = db.execute("PRAGMA integrity_check").fetchone()
    writers = db.execute("SELECT writer, count(*) FROM entries GROUP BY writer ORDER BY writer").fetchall()
    (total,) = db.execute("SELECT n FROM total").fetchone()
    print(mode, check, writers, total)
