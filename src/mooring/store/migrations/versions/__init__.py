"""One module per revision:  v<number>_<what>."""
