"""Multipart uploads."""

import functools
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import quote
from xml.etree.ElementTree import Element

from mooring.objects import attributes, checksums, conditions, encryption, integrity, times, xml
from mooring.objects.errors import S3Error, invalid_argument, not_implemented
from mooring.objects.exchange import Reply, Request, xml_reply
from mooring.objects.payload import Payload
from mooring.objects.receiving import MAX_DOCUMENT_BYTES, MAX_PUT_BYTES, collect, receive
from mooring.objects.records import Checksum, Part, PartChoice, Upload
from mooring.objects.site import Site, check_encoding_type
from mooring.objects.uploads import MAX_PARTS, UploadMark

_MAX_LISTED = 1000


async def create_upload(site: Site, request: Request) -> Reply:
    """API_CreateMultipartUpload."""
    bucket = site.bucket(request)
    attributes.check_plain(request.headers)
    kept = replace(attributes.attributes_of(request.headers), encryption=site.encryption_of(request))
    algorithm, kind = _upload_checksum(request)
    upload = await site.workers.run(
        functools.partial(
            site.uploads.create, bucket, request.target.key, attributes=kept, algorithm=algorithm, checksum_kind=kind
        )
    )
    headers = {} if algorithm is None else {"x-amz-checksum-algorithm": algorithm, "x-amz-checksum-type": kind}
    return xml_reply(
        xml.document(
            "InitiateMultipartUploadResult",
            (("Bucket", bucket.name), ("Key", upload.key.decode()), ("UploadId", upload.id)),
        ),
        headers={**headers, **encryption.written_headers(kept.encryption)},
    )


def _upload_checksum(request: Request) -> tuple[str | None, str]:
    algorithm = request.headers.get("x-amz-checksum-algorithm", "").upper() or None
    kind = request.headers.get("x-amz-checksum-type", "").upper()
    if algorithm is None:
        if kind:
            raise S3Error(
                "InvalidRequest",
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.",
            )
        return None, "COMPOSITE"
    if algorithm not in checksums.ALGORITHMS:
        raise not_implemented(f"The checksum algorithm {algorithm}")
    kind = kind or checksums.default_kind(algorithm)
    if kind not in ("COMPOSITE", "FULL_OBJECT"):
        raise invalid_argument("x-amz-checksum-type", kind, "Value for x-amz-checksum-type header is invalid.")
    impossible = (kind == "FULL_OBJECT" and algorithm not in checksums.CRCS) or (
        kind == "COMPOSITE" and algorithm == "CRC64NVME"
    )
    if impossible:
        raise S3Error(
            "InvalidRequest",
            f"The {kind} checksum type cannot be used with the {algorithm.lower()} checksum algorithm.",
        )
    return algorithm, kind


async def upload_part(site: Site, request: Request) -> Reply:
    """API_UploadPart."""
    bucket = site.bucket(request)
    number = _part_number(request)
    upload_id = request.parameters.get("uploadId", "")
    payload = Payload(request, max_bytes=MAX_PUT_BYTES)
    stated = integrity.stated_by(request.headers, sha256=payload.sha256)
    upload = await site.workers.run(site.uploads.get, bucket, request.target.key, upload_id)
    if upload.algorithm and stated.algorithm and upload.algorithm != stated.algorithm:
        raise S3Error(
            "InvalidRequest",
            f"Checksum Type mismatch occurred, expected checksum Type: {upload.algorithm.lower()}, actual checksum Type: "
            f"{stated.algorithm.lower()}",
        )
    guards = integrity.Guards(stated, also=upload.algorithm)
    sealed = upload.attributes.encryption
    intake = site.uploads.intake(upload)

    def finish() -> integrity.Seal:
        found = guards.settle(payload.trailers)
        seal = replace(found, etag=site.etag_of(found, sealed))
        checksum = seal.checksum if upload.algorithm else ""
        site.uploads.put_part(bucket, upload, number, intake.finish(), etag=seal.etag, checksum=checksum)
        return seal

    seal = await receive(payload.__aiter__(), intake=intake, guards=guards, finish=finish, workers=site.workers)
    headers = {"etag": f'"{seal.etag}"', **encryption.response_headers(sealed)}
    if seal.algorithm is not None:
        headers[f"x-amz-checksum-{seal.algorithm.lower()}"] = seal.checksum
    return Reply(headers=headers)


def _part_number(request: Request) -> int:
    number = request.number("partNumber", default=0, lowest=0, highest=MAX_PARTS + 1)
    if not 1 <= number <= MAX_PARTS:
        raise invalid_argument(
            "partNumber",
            request.parameters.get("partNumber", ""),
            f"Part number must be an integer between 1 and {MAX_PARTS}, inclusive",
        )
    return number


async def list_parts(site: Site, request: Request) -> Reply:
    """API_ListParts."""
    bucket = site.bucket(request)
    limit = request.number("max-parts", default=_MAX_LISTED, lowest=0, highest=_MAX_LISTED)
    after = request.number("part-number-marker", default=0, lowest=0, highest=MAX_PARTS)
    upload, parts = await site.workers.run(
        functools.partial(
            site.uploads.parts,
            bucket,
            request.target.key,
            request.parameters["uploadId"],
            after=after,
            limit=limit + 1,
        )
    )
    page = parts[:limit]
    return xml_reply(
        xml.document(
            "ListPartsResult",
            (
                ("Bucket", bucket.name),
                ("Key", upload.key.decode()),
                ("UploadId", upload.id),
                ("PartNumberMarker", after),
                ("NextPartNumberMarker", page[-1].number if page else after),
                ("MaxParts", limit),
                ("IsTruncated", bool(page) and len(parts) > limit),
                ("ChecksumAlgorithm", upload.algorithm),
                ("ChecksumType", upload.checksum_kind if upload.algorithm else None),
                *(("Part", _part_nodes(upload, part)) for part in page),
                ("Initiator", site.owner()),
                ("Owner", site.owner()),
                ("StorageClass", "STANDARD"),
            ),
        )
    )


def _part_nodes(upload: Upload, part: Part) -> Sequence[xml.Node]:
    return (
        ("PartNumber", part.number),
        ("LastModified", times.iso(part.modified_s)),
        ("ETag", f'"{part.etag}"'),
        ("Size", part.size),
        *(((f"Checksum{upload.algorithm}", part.checksum),) if upload.algorithm else ()),
    )


async def list_uploads(site: Site, request: Request) -> Reply:
    """API_ListMultipartUploads, without delimiter."""
    bucket = site.bucket(request)
    limit = request.number("max-uploads", default=_MAX_LISTED, lowest=0, highest=_MAX_LISTED)
    prefix = request.parameters.get("prefix", "")
    key_marker = request.parameters.get("key-marker", "")
    upload_marker = request.parameters.get("upload-id-marker", "") if key_marker else ""
    url = check_encoding_type(request)
    found = await site.workers.run(
        functools.partial(
            site.uploads.uploads,
            bucket,
            prefix=prefix.encode(),
            after=UploadMark(key=key_marker.encode(), upload_id=upload_marker),
            limit=limit + 1,
        )
    )
    page = found[:limit]
    more = bool(page) and len(found) > limit

    def encode(text: str) -> str:
        return quote(text, safe="/-_.~*") if url else text

    return xml_reply(
        xml.document(
            "ListMultipartUploadsResult",
            (
                ("Bucket", bucket.name),
                ("KeyMarker", encode(key_marker)),
                ("UploadIdMarker", upload_marker),
                ("NextKeyMarker", encode(page[-1].key.decode()) if more else None),
                ("NextUploadIdMarker", page[-1].id if more else None),
                ("Prefix", encode(prefix)),
                ("EncodingType", "url" if url else None),
                ("MaxUploads", limit),
                ("IsTruncated", more),
                *(("Upload", _upload_nodes(site, upload, encode(upload.key.decode()))) for upload in page),
            ),
        )
    )


def _upload_nodes(site: Site, upload: Upload, key: str) -> Sequence[xml.Node]:
    return (
        ("Key", key),
        ("UploadId", upload.id),
        ("Initiator", site.owner()),
        ("Owner", site.owner()),
        ("StorageClass", "STANDARD"),
        ("Initiated", times.iso(upload.initiated_s)),
        ("ChecksumAlgorithm", upload.algorithm),
        ("ChecksumType", upload.checksum_kind if upload.algorithm else None),
    )


async def complete_upload(site: Site, request: Request) -> Reply:
    """API_CompleteMultipartUpload. Its checksum headers are about the object, not about the request's own body."""
    bucket = site.bucket(request)
    named = integrity.stated_by(request.headers, sha256=None)
    payload = Payload(request, max_bytes=MAX_DOCUMENT_BYTES)
    guards = integrity.Guards(integrity.Stated(md5=named.md5, sha256=payload.sha256))
    choices = _choices(await collect(payload, guards, workers=site.workers))
    upload_id = request.parameters["uploadId"]
    kind = request.headers.get("x-amz-checksum-type", "").upper()
    if kind:
        upload = await site.workers.run(site.uploads.get, bucket, request.target.key, upload_id)
        if kind != upload.checksum_kind:
            raise S3Error(
                "InvalidRequest",
                f"The upload was created with the {upload.checksum_kind} checksum type; the request says {kind}.",
            )
    size = request.headers.get("x-amz-mp-object-size")
    if size is not None and not (size.isascii() and size.isdigit()):
        raise invalid_argument("x-amz-mp-object-size", size, "Value for x-amz-mp-object-size header is invalid.")
    stated = None
    if named.algorithm is not None and named.value is not None:
        stated = Checksum(algorithm=named.algorithm, value=named.value)
    head = await site.workers.run(
        functools.partial(
            site.uploads.complete,
            bucket,
            request.target.key,
            upload_id,
            choices,
            stated_checksum=stated,
            stated_size=None if size is None else int(size),
            precondition=conditions.precondition_of(request.headers),
        )
    )
    nodes: list[xml.Node] = [
        ("Location", f"/{bucket.name}/{quote(head.key)}"),
        ("Bucket", bucket.name),
        ("Key", head.key.decode()),
        ("ETag", f'"{head.etag}"'),
    ]
    if head.checksum is not None:
        nodes += [(f"Checksum{head.checksum.algorithm}", head.checksum.value), ("ChecksumType", head.checksum.kind)]
    return xml_reply(
        xml.document("CompleteMultipartUploadResult", nodes),
        headers=encryption.response_headers(head.attributes.encryption),
    )


def _choices(document: bytes) -> list[PartChoice]:
    choices = [_choice(child) for child in xml.parse(document, "CompleteMultipartUpload")]
    if not 0 < len(choices) <= MAX_PARTS:
        raise xml.malformed()
    return choices


def _choice(element: Element) -> PartChoice:
    values = {child.tag: (child.text or "").strip() for child in element}
    number = values.pop("PartNumber", "")
    etag = values.pop("ETag", "").strip('"')
    if element.tag != "Part" or not etag or not (number.isascii() and number.isdigit() and len(number) < 9):
        raise xml.malformed()
    found = {}
    for tag, value in values.items():
        algorithm = tag.removeprefix("Checksum")
        if algorithm == tag:
            raise xml.malformed()
        if algorithm not in checksums.ALGORITHMS:
            raise not_implemented(f"The checksum algorithm {algorithm}")
        found[algorithm] = value
    return PartChoice(number=int(number), etag=etag, checksums=found)


async def abort_upload(site: Site, request: Request) -> Reply:
    """API_AbortMultipartUpload."""
    bucket = site.bucket(request)
    await site.workers.run(site.uploads.abort, bucket, request.target.key, request.parameters["uploadId"])
    return Reply(status=204)
