"""One small process per instance: owns its logs, exit status and lock; survives the server."""
