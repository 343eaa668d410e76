"""The `mooring` command: parse, call app, print."""
