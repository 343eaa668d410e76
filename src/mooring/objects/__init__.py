"""The embedded S3 server: a process of its own over a directory."""
