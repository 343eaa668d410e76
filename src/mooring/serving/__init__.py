"""The built-in model server; runs inside an instance; standard library and `mooring.contract` only."""
