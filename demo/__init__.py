"""`make demo`: the main job on real data, with plain boto3, against a server of its own."""
