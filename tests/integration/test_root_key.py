"""The root key of a whole server: encrypted objects outlive restarts, and no server starts without their key."""

from collections.abc import Callable

from tests.server import Server


def test_encrypted_objects_outlive_a_restart_and_a_server_without_their_key_ends_saying_so(
    own_server: Callable[..., Server],
) -> None:
    server = own_server()
    at = {"Bucket": "bucket", "Key": "k"}
    s3 = server.client("s3")
    s3.create_bucket(Bucket="bucket")
    put = s3.put_object(**at, Body=b"content", ServerSideEncryption="aws:kms")
    key = server.data_dir / "keys" / "root"
    root = key.read_bytes()
    assert key.stat().st_mode & 0o777 == 0o600

    assert server.stop() == 0
    key.unlink()
    before = server.log()
    assert server.spawn().wait(60) == 1
    added = server.log()[len(before) :]
    (line,) = [line for line in added.splitlines() if "is gone" in line]  # said once, not tried again
    assert f"holds encrypted objects, but their key {key} is gone" in line
    assert "Traceback" not in added
    assert not key.exists()

    key.write_bytes(root)
    server.start()
    got = server.client("s3").get_object(**at)
    assert got["Body"].read() == b"content"
    assert got["SSEKMSKeyId"] == put["SSEKMSKeyId"]
