"""One small process per instance, in a session of its own: it starts the sandbox, keeps output and exit, and answers.

    control ──start──▶ shim ──fork──▶ bwrap ──▶ PID 1 of the sandbox (bwrap's reaper) ──▶ model server
                        │  ▲ one pipe: stdout and stderr ─────────────────────────────────────┘
                        ├─fork─▶ network process: way out of the sandbox (shim.network)
                        ├─▶ log store (kit.logfile), exit.json          (contract.shim names the files)
                        └─▶ shim.sock: status, stop, wait, dial

Started by runtime.process; knows nothing of it, nor of SageMaker: it does what its launch document says. It stays outside
the sandbox, so that nothing the model does can reach its logs, lock or record; its death kills the sandbox (PDEATHSIG),
because bwrap runs with --die-with-parent. Standard library and a few imports only: it starts in tens of milliseconds.
"""
