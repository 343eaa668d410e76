"""The edge worker process: listening protocol, control channel, hand-over to control and S3."""
