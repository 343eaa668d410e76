"""Names that both sides of a container agree on: paths, headers, environment, ports. Standard library, old Pythons."""
