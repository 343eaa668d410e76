"""HTTP/1.1 server and client edge on asyncio protocols; hides the library."""
