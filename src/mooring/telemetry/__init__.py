"""Logs and metrics: the bounded log store and the AWS APIs over it."""
