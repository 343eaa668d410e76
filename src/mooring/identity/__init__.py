"""Who calls: credentials, STS and IAM operations."""
