"""The parent process: owns listening sockets and shared memory, starts and restarts the others."""
