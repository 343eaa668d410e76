"""Key management. (A later issue fills this room.)"""
