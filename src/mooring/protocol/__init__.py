"""Pure AWS wire protocol driven by botocore's models; Signature V4."""
