"""Clock, tasks, backoff, logging, frames, shared memory. Knows nothing of SageMaker."""
