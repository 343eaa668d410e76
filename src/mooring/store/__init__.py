"""State of record: Protocols, the SQLite engine, migrations."""
