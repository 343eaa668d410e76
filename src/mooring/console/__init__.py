"""Server-rendered pages; reads through the same control services. (A later issue fills this room.)"""
