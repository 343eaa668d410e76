"""Operation services, one module per resource. They record intent and read state; they never act."""
