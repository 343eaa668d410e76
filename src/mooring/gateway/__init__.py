"""Data-plane front: invocations to a variant's instances and back; never decodes a body."""
