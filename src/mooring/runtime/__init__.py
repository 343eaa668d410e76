"""Making instances exist: drivers, images, artifacts, limits."""
