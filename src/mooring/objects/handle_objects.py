"""Operations on single objects, and DeleteObjects."""

from collections.abc import Callable
from dataclasses import replace
from urllib.parse import unquote_to_bytes

from mooring.objects import attributes, conditions, encryption, integrity, names, preconditions, ranges, times, xml
from mooring.objects.errors import S3Error, invalid_argument, not_implemented
from mooring.objects.exchange import Reply, Request, Stream, xml_reply
from mooring.objects.keys import S3_MANAGED
from mooring.objects.payload import Payload
from mooring.objects.reading import ObjectReader
from mooring.objects.receiving import BLOCK_BYTES, MAX_DOCUMENT_BYTES, MAX_PUT_BYTES, read_document, receive
from mooring.objects.records import Attributes, Body, Bucket, Checksum, Encryption, ObjectHead
from mooring.objects.site import Site, refuse_null_version

_MAX_DELETED = 1000


async def put_object(site: Site, request: Request) -> Reply:
    """API_PutObject."""
    bucket = site.bucket(request)
    attributes.check_plain(request.headers)
    sealed = site.encryption_of(request)
    kept = replace(attributes.attributes_of(request.headers), encryption=sealed)
    precondition = conditions.precondition_of(request.headers)
    payload = Payload(request, max_bytes=MAX_PUT_BYTES)
    guards = integrity.Guards(integrity.stated_by(request.headers, sha256=payload.sha256))
    intake = site.storage.intake(sealed)

    def finish() -> ObjectHead:
        seal = guards.settle(payload.trailers)
        return site.storage.put_object(
            bucket,
            request.target.key,
            intake.finish(),
            etag=site.etag_of(seal, sealed),
            attributes=kept,
            checksum=seal.stored(),
            precondition=precondition,
        )

    head = await receive(payload.__aiter__(), intake=intake, guards=guards, finish=finish, workers=site.workers)
    return Reply(
        headers={
            "etag": f'"{head.etag}"',
            **attributes.checksum_headers(head),
            **encryption.written_headers(head.attributes.encryption),
        }
    )


async def get_object(site: Site, request: Request) -> Reply:
    """API_GetObject and API_HeadObject: the same but for the body."""
    bucket = site.bucket(request)
    if request.method == "HEAD":
        head = await site.workers.run(site.storage.head_object, bucket, request.target.key)
        status, headers, span = _selection(request, head)
        return Reply(status=status, headers=headers, length=span.length)
    reader = await site.workers.run(site.storage.open_object, bucket, request.target.key)
    try:
        status, headers, span = _selection(request, reader.head)
        if reader.inline is None and span.length:
            first = await site.workers.run(reader.read, span.start, min(BLOCK_BYTES, span.length))
            stream = Stream(reader=reader, start=span.start, length=span.length, first=first)
            return Reply(status=status, headers=headers, body=stream)
        data = b"" if reader.inline is None else reader.inline[span.start : span.start + span.length]
    except BaseException:
        reader.close()
        raise
    reader.close()
    return Reply(status=status, headers=headers, body=data)


def _selection(request: Request, head: ObjectHead) -> tuple[int, dict[str, str], ranges.Span]:
    """Status, headers and the bytes asked for. Raises PreconditionFailed, NotModified, InvalidRange, InvalidArgument."""
    headers = attributes.response_headers(head, request.parameters)
    headers["last-modified"] = times.http(head.modified_s)
    precondition = conditions.precondition_of(request.headers)
    if precondition is not None:
        try:
            preconditions.check_read(precondition, head)
        except S3Error as error:
            error.headers.update({name: headers[name] for name in ("etag", "last-modified")})
            raise
    span = _span(request, head, headers)
    if span is None:
        if request.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED":
            headers.update(attributes.checksum_headers(head))
        return 200, headers, ranges.Span(start=0, length=head.size)
    headers["content-range"] = f"bytes {span.start}-{span.start + span.length - 1}/{head.size}"
    return 206, headers, span


def _span(request: Request, head: ObjectHead, headers: dict[str, str]) -> ranges.Span | None:
    if "partNumber" in request.parameters:
        if "range" in request.headers:
            raise S3Error("InvalidRequest", "Cannot specify both Range header and partNumber query parameter")
        return _part_span(request, head, headers)
    if "range" not in request.headers:
        return None
    if head.size == 0:
        return ranges.span_of(request.headers["range"], 0)
    return ranges.span_of(request.headers["range"], head.size)


def _part_span(request: Request, head: ObjectHead, headers: dict[str, str]) -> ranges.Span | None:
    number = request.number("partNumber", default=1, lowest=1, highest=10_001)
    sizes = [part.size for part in head.parts] or [head.size]
    if number > len(sizes):
        raise S3Error(
            "InvalidPartNumber",
            "The requested partnumber is not satisfiable",
            fields={"PartNumberRequested": str(number), "ActualPartCount": str(len(sizes))},
        )
    if head.parts:
        headers["x-amz-mp-parts-count"] = str(len(sizes))
    start = sum(sizes[: number - 1])
    return ranges.Span(start=start, length=sizes[number - 1]) if head.size else None


async def delete_object(site: Site, request: Request) -> Reply:
    """API_DeleteObject; deleting what is not there succeeds."""
    await site.workers.run(site.storage.delete_objects, site.bucket(request), [request.target.key])
    return Reply(status=204)


async def delete_objects(site: Site, request: Request) -> Reply:
    """API_DeleteObjects: all in one commit."""
    bucket = site.bucket(request)
    if "content-md5" not in request.headers and not any(
        integrity.algorithm_of_header(name) for name in (*request.headers, request.headers.get("x-amz-trailer", ""))
    ):
        raise S3Error("InvalidRequest", "Missing required header for this request: Content-MD5 OR x-amz-checksum-*")
    document = await read_document(request, Payload(request, max_bytes=MAX_DOCUMENT_BYTES), workers=site.workers)
    keys, quiet = _deletion(document)
    kept, errors = [], []
    for key in keys:
        try:
            kept.append(names.checked_key(key))
        except S3Error as error:
            errors.append(("Error", (("Key", key.decode()), ("Code", error.code), ("Message", error.message))))
    await site.workers.run(site.storage.delete_objects, bucket, kept)
    deleted = [] if quiet else [("Deleted", (("Key", key.decode()),)) for key in kept]
    return xml_reply(xml.document("DeleteResult", [*deleted, *errors]))


def _deletion(document: bytes) -> tuple[list[bytes], bool]:
    keys: list[bytes] = []
    quiet = False
    for child in xml.parse(document, "Delete"):
        if child.tag == "Quiet":
            quiet = (child.text or "").strip().lower() == "true"
            continue
        if child.tag != "Object":
            raise xml.malformed()
        key = child.findtext("Key")
        if not key:
            raise xml.malformed()
        refuse_null_version(child.findtext("VersionId"))
        for member in child:
            if member.tag not in ("Key", "VersionId"):
                raise not_implemented(f"{member.tag} of DeleteObjects")
        keys.append(key.encode())
    if not 0 < len(keys) <= _MAX_DELETED:
        raise xml.malformed()
    return keys, quiet


# CopyObject
async def copy_object(site: Site, request: Request) -> Reply:
    """API_CopyObject, of the whole object."""
    bucket = site.bucket(request)
    attributes.check_plain(request.headers)
    source_name, source_key = _copy_source(request.headers["x-amz-copy-source"])
    site.check_owner(request.headers.get("x-amz-source-expected-bucket-owner"))
    source = site.storage.bucket(source_name)
    directive = request.headers.get("x-amz-metadata-directive", "COPY")
    if directive not in ("COPY", "REPLACE"):
        raise invalid_argument("x-amz-metadata-directive", directive, "Unknown metadata directive.")
    asked = site.encryption_of(request)
    if directive == "COPY" and asked is None and (source.id, source_key) == (bucket.id, request.target.key):
        raise S3Error(
            "InvalidRequest",
            "This copy request is illegal because it is trying to copy an object to itself without changing the object's "
            "metadata, storage class, website redirect location or encryption attributes.",
        )
    replaced = attributes.attributes_of(request.headers) if directive == "REPLACE" else None
    head = await site.workers.run(_copy, site, source, source_key, bucket, request.target.key, replaced, asked)
    checksum = _checksum_nodes(head.checksum)
    return xml_reply(
        xml.document(
            "CopyObjectResult",
            (("ETag", f'"{head.etag}"'), ("LastModified", times.iso(head.modified_s)), *checksum),
        ),
        headers=encryption.written_headers(head.attributes.encryption),
    )


def _copy_source(header: str) -> tuple[str, bytes]:
    path, _, query = header.partition("?")
    bucket, _, key = unquote_to_bytes(path.removeprefix("/")).partition(b"/")
    if query:
        refuse_null_version(query.removeprefix("versionId="))
    try:
        key.decode("utf-8")
        name = bucket.decode("utf-8")
    except UnicodeDecodeError as error:
        raise invalid_argument("x-amz-copy-source", header, "Copy source must be UTF-8.") from error
    if not name or not key:
        raise invalid_argument(
            "x-amz-copy-source", header, "Copy Source must mention the source bucket and key: sourcebucket/sourcekey"
        )
    return name, names.checked_key(key)


def _copy(
    site: Site,
    source: Bucket,
    source_key: bytes,
    bucket: Bucket,
    key: bytes,
    replaced: Attributes | None,
    asked: Encryption | None,
) -> ObjectHead:
    reader = site.storage.open_object(source, source_key)
    try:
        head = reader.head
        if head.size > MAX_PUT_BYTES:
            raise S3Error("InvalidRequest", "The specified copy source is larger than the maximum allowable size.")
        sealed = _encryption_of_copy(head.attributes.encryption, asked)
        body, seal = _copied(site, reader, sealed)
        return site.storage.put_object(
            bucket,
            key,
            body,
            etag=site.etag_of(seal, sealed),
            attributes=replace(head.attributes if replaced is None else replaced, encryption=sealed),
            checksum=seal.stored(),
        )
    finally:
        reader.close()


def _encryption_of_copy(present: Encryption | None, asked: Encryption | None) -> Encryption | None:
    """As S3, a copy that asks for nothing gets the bucket's default, not what its source has; only, the default here is not
    to encrypt, and a copy must not lay open what was sealed: it gets AES256.
    """
    if asked is None and present is not None:
        return Encryption(mode="AES256", key=S3_MANAGED)
    return asked


def _copied(site: Site, reader: ObjectReader, sealed: Encryption | None) -> tuple[Body, integrity.Seal]:
    """The bytes once more, with their sums. They are read only where sums are missing or they must be sealed anew."""
    head = reader.head
    if sealed != head.attributes.encryption:
        intake = site.storage.intake(sealed)
        try:
            seal = _summed(reader, intake.write)
            return intake.finish(), seal
        except BaseException:
            intake.abort()
            raise
    if head.parts:
        seal = _summed(reader, lambda _: None)
    else:
        checksum = head.checksum
        algorithm, value = (None, "") if checksum is None else (checksum.algorithm, checksum.value)
        seal = integrity.Seal(etag=head.etag, algorithm=algorithm, checksum=value)
    return site.storage.copy_body(reader), seal


def _summed(reader: ObjectReader, take: Callable[[bytes], None]) -> integrity.Seal:
    """MD5 and checksum of an object as one piece: over its bytes, which are read once, and `take` gets them."""
    present = reader.head.checksum
    guards = integrity.Guards(integrity.Stated(), also=None if present is None else present.algorithm)
    at = 0
    while at < reader.head.size:
        block = reader.read(at, BLOCK_BYTES)
        guards.update(block)
        take(block)
        at += len(block)
    return guards.settle({})


def _checksum_nodes(checksum: Checksum | None) -> tuple[xml.Node, ...]:
    if checksum is None:
        return ()
    return (f"Checksum{checksum.algorithm}", checksum.value), ("ChecksumType", checksum.kind)
