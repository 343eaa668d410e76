"""Composition root: one module per process; builds every object, owns the order of start, drain and stop."""
