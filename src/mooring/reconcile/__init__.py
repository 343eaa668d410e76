"""Makes the world match the store: the only package that reads the store and acts on the runtime."""
