"""Load generator. (A later issue fills this room.)"""
