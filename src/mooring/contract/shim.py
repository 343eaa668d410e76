"""What an instance's directory holds and how its shim is spoken to: driver and shim agree on it, the edge dials by it.

    <data>/instances/<instance id>/          0700
        spec.json    what recovery needs, written before anything is started; holds no environment
        lock         flock'ed from before the start until the shim's death: held = the instance may be alive
        shim.json    pid, start ticks and boot id of the shim
        shim.sock    the shim's commands (0600)
        exit.json    how the instance ended, written once, atomically
        sock/        the model server's own socket, serve.sock

shim.sock takes one JSON object and LF, and answers with one JSON object and LF:

    {"op": "status"}                 {"ok": true, "pid": …, "start_ticks": …, "boot_id": …, "child_pid": …, …}
    {"op": "stop", "grace_s": 30}    SIGTERM now, SIGKILL after the grace; answers with exit.json's object at the end
    {"op": "wait"}                   exit.json's object at the end
    {"op": "dial", "port": 8080}     {"ok": true} with a descriptor (SCM_RIGHTS): a socket connected to that port
                                     (8080 when not named) on the instance's own loopback; {"ok": false, "error": …}

A connection that closes without an answer: the shim is gone, or busy (at most MAX_CONNECTIONS at a time).
"""

SPEC = "spec.json"
LOCK = "lock"
IDENTITY = "shim.json"
SOCKET = "shim.sock"
EXIT = "exit.json"
SERVE_DIRECTORY = "sock"
SERVE_SOCKET = "serve.sock"

MAX_CONNECTIONS = 256
MAX_LINE_BYTES = 4096  # of a command
MAX_ANSWER_BYTES = 256 * 1024
LAST_WORDS_BYTES = 16 * 1024
