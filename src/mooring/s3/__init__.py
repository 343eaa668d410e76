"""Object storage as a client: Protocol, boto3 client, in-memory fake."""
