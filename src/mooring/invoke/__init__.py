"""Calling instances: ping, invocations, pool choice, in-flight counts."""
