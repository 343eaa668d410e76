"""Object storage over boto3: the embedded server or any S3. Every call runs in a worker thread; importing boto3 waits for
the first one, for it takes longer than starting the server.

The deadline ends the caller's wait at once. The thread behind it ends at its next block of bytes, or by boto's own
time-outs; it keeps its place among the workers until then, so abandoned calls stay bounded as well.
"""

import asyncio
import contextlib
import functools
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mooring.s3.base import (
    DeniedError,
    NotFoundError,
    ObjectStat,
    ObjectStoreError,
    TooLargeError,
    parse_object_uri,
    parse_uri,
)

_BLOCK_BYTES = 1 << 20
_MULTIPART_BYTES = 64 << 20
_PAGE = 1000
_NOT_FOUND = frozenset({"404", "NoSuchKey", "NoSuchBucket", "NotFound"})
_DENIED = frozenset(
    {
        "401",
        "403",
        "AccessDenied",
        "AllAccessDisabled",
        "ExpiredToken",
        "Forbidden",
        "InvalidAccessKeyId",
        "InvalidToken",
        "SignatureDoesNotMatch",
    }
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Access:
    """How to reach the storage, and as whom."""

    endpoint_url: str | None  # None: AWS itself
    region: str
    access_key: str
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 60.0
    attempts: int = 4
    workers: int = 8


class _Deadline:
    """Seen by a worker thread between blocks."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds
        self.abandoned = threading.Event()

    def check(self, uri: str) -> None:
        if self.abandoned.is_set() or time.monotonic() > self._at:
            raise ObjectStoreError("the deadline has passed", uri=uri)


class S3ObjectStore:
    """See the module."""

    def __init__(self, access: S3Access) -> None:
        self._access = access
        self._pool = ThreadPoolExecutor(access.workers, thread_name_prefix="s3")
        self._making = threading.Lock()
        self._made: Any = None

    # a boto3 client has no type of its own
    def _client(self) -> Any:
        with self._making:
            if self._made is None:
                self._made = self._make()
            return self._made

    def _make(self) -> Any:
        import boto3
        from botocore.config import Config

        access = self._access
        session = boto3.session.Session(
            aws_access_key_id=access.access_key,
            aws_secret_access_key=access.secret_key,
            aws_session_token=access.session_token,
            region_name=access.region,
        )
        return session.client(
            "s3",
            endpoint_url=access.endpoint_url,
            config=Config(
                s3={"addressing_style": "path"},
                connect_timeout=access.connect_timeout_s,
                read_timeout=access.read_timeout_s,
                retries={"total_max_attempts": access.attempts, "mode": "standard"},
                max_pool_connections=access.workers,
                ignore_configured_endpoint_urls=True,  # what is given here counts, not the environment
                proxies={},
            ),
        )

    async def _run(self, uri: str, deadline_s: float, work: Callable[[Any, _Deadline], T]) -> T:
        deadline = _Deadline(deadline_s)

        def call() -> T:
            deadline.check(uri)  # it may have waited long for a worker
            with _translated(uri):
                return work(self._client(), deadline)

        future = asyncio.get_running_loop().run_in_executor(self._pool, call)
        try:
            async with asyncio.timeout(deadline_s):
                return await asyncio.shield(future)
        except TimeoutError as error:
            raise ObjectStoreError(f"no answer within {deadline_s:g} s", uri=uri) from error
        finally:
            deadline.abandoned.set()
            future.add_done_callback(_retrieve)

    async def get_to_file(self, uri: str, path: Path, *, max_bytes: int, deadline_s: float) -> str:
        """See ObjectStore. The file is complete and synced before it has its name."""
        location = parse_object_uri(uri)

        def work(client: Any, deadline: _Deadline) -> str:
            if path.exists():
                raise FileExistsError(path)
            reply = client.get_object(Bucket=location.bucket, Key=location.key)
            partial = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.partial")
            try:
                with contextlib.closing(reply["Body"]) as body, partial.open("xb") as file:
                    for block in _blocks(body, reply["ContentLength"], max_bytes, deadline, uri):
                        file.write(block)
                    file.flush()
                    os.fsync(file.fileno())
                deadline.check(uri)
                os.link(partial, path)  # unlike a rename, never over somebody else's file
            finally:
                partial.unlink(missing_ok=True)
            return str(reply["ETag"]).strip('"')

        return await self._run(uri, deadline_s, work)

    async def get_bytes(self, uri: str, *, max_bytes: int, deadline_s: float = 60.0) -> bytes:
        """See ObjectStore."""
        location = parse_object_uri(uri)

        def work(client: Any, deadline: _Deadline) -> bytes:
            reply = client.get_object(Bucket=location.bucket, Key=location.key)
            with contextlib.closing(reply["Body"]) as body:
                return b"".join(_blocks(body, reply["ContentLength"], max_bytes, deadline, uri))

        return await self._run(uri, deadline_s, work)

    async def stat(self, uri: str, *, deadline_s: float = 30.0) -> ObjectStat | None:
        """See ObjectStore."""
        location = parse_object_uri(uri)

        def work(client: Any, deadline: _Deadline) -> ObjectStat:
            reply = client.head_object(Bucket=location.bucket, Key=location.key)
            return ObjectStat(uri=uri, size=reply["ContentLength"], etag=reply["ETag"].strip('"'))

        try:
            return await self._run(uri, deadline_s, work)
        except NotFoundError:
            return None

    async def put_file(self, uri: str, path: Path, *, deadline_s: float) -> None:
        """See ObjectStore. In parts where it is large."""
        location = parse_object_uri(uri)

        def work(client: Any, deadline: _Deadline) -> None:
            from boto3.s3.transfer import TransferConfig

            config = TransferConfig(
                multipart_threshold=_MULTIPART_BYTES, multipart_chunksize=_MULTIPART_BYTES, use_threads=False
            )
            client.upload_file(
                str(path), location.bucket, location.key, Config=config, Callback=lambda _: deadline.check(uri)
            )

        await self._run(uri, deadline_s, work)

    async def put_bytes(self, uri: str, data: bytes, *, deadline_s: float = 60.0) -> None:
        """See ObjectStore."""
        location = parse_object_uri(uri)

        def work(client: Any, deadline: _Deadline) -> None:
            client.put_object(Bucket=location.bucket, Key=location.key, Body=data)

        await self._run(uri, deadline_s, work)

    async def list(self, prefix: str, *, deadline_s: float = 60.0) -> AsyncIterator[ObjectStat]:
        """See ObjectStore."""
        location = parse_uri(prefix)
        token: str | None = None

        def work(client: Any, deadline: _Deadline, *, token: str | None) -> tuple[list[ObjectStat], str | None]:
            more = {} if token is None else {"ContinuationToken": token}
            reply = client.list_objects_v2(Bucket=location.bucket, Prefix=location.key, MaxKeys=_PAGE, **more)
            page = [
                ObjectStat(uri=f"s3://{location.bucket}/{item['Key']}", size=item["Size"], etag=item["ETag"].strip('"'))
                for item in reply.get("Contents", ())
            ]
            return page, reply.get("NextContinuationToken")

        while True:
            page, token = await self._run(prefix, deadline_s, functools.partial(work, token=token))
            for stat in page:
                yield stat
            if token is None:
                return

    async def aclose(self) -> None:
        """See ObjectStore."""
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)
        with self._making:
            if self._made is not None:
                self._made.close()
                self._made = None


def _retrieve(future: "asyncio.Future[Any]") -> None:
    """An abandoned call's failure is nobody's any more: its caller was told of the deadline."""
    if not future.cancelled():
        future.exception()


def _blocks(body: Any, size: int, max_bytes: int, deadline: _Deadline, uri: str) -> Iterator[bytes]:
    if size > max_bytes:
        raise TooLargeError(f"{size} bytes; at most {max_bytes} are taken", uri=uri)
    received = 0
    while block := body.read(_BLOCK_BYTES):
        received += len(block)
        deadline.check(uri)
        if received > max_bytes:
            raise TooLargeError(f"more than the {max_bytes} bytes that are taken", uri=uri)
        yield block


@contextlib.contextmanager
def _translated(uri: str) -> Iterator[None]:
    """boto3's, s3transfer's and urllib3's failures as ours."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise _of_client_error(error, uri) from error
    except Boto3Error as error:  # upload_file wraps what went wrong, in its text only
        cause = error.__context__
        if isinstance(cause, ClientError):
            raise _of_client_error(cause, uri) from error
        raise ObjectStoreError(str(error), uri=uri) from error
    except BotoCoreError as error:
        raise ObjectStoreError(str(error), uri=uri) from error


def _of_client_error(error: Any, uri: str) -> ObjectStoreError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    text = str(error.response.get("Error", {}).get("Message", "")) or code
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
    message = f"{text} ({code})"
    if code in _NOT_FOUND:
        return NotFoundError(message, uri=uri)
    if code in _DENIED:
        return DeniedError(message, uri=uri)
    failure = ObjectStoreError(message, uri=uri)
    failure.retryable = status >= 500 or code in ("RequestTimeout", "SlowDown", "Throttling", "RequestTimeTooSkewed")
    return failure
