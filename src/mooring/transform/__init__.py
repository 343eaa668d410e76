"""Batch transform engine. (A later issue fills this room.)"""
