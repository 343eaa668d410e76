"""Control-plane front: authenticate, parse, validate, dispatch, serialize."""
