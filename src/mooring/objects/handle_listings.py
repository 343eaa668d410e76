"""ListObjects and ListObjectsV2."""

import functools
from collections.abc import Callable, Iterable
from urllib.parse import quote

from mooring.objects import times, xml
from mooring.objects.exchange import Reply, Request, xml_reply
from mooring.objects.listing import Page
from mooring.objects.rows import ListedObject
from mooring.objects.site import Site, check_encoding_type
from mooring.objects.tokens import decode_token, encode_token

MAX_KEYS = 1000
Encoder = Callable[[str], str]


async def list_objects(site: Site, request: Request) -> Reply:
    """API_ListObjects."""
    marker = request.parameters.get("marker", "")
    delimiter = request.parameters.get("delimiter", "")
    encode = _encoder(check_encoding_type(request))
    limit, page = await _page(site, request, marker.encode())
    return xml_reply(
        xml.document(
            "ListBucketResult",
            (
                ("Name", request.target.bucket),
                ("Prefix", encode(request.parameters.get("prefix", ""))),
                ("Marker", encode(marker)),
                ("NextMarker", encode(page.last.decode()) if page.truncated and delimiter else None),
                ("MaxKeys", limit),
                ("Delimiter", encode(delimiter) if delimiter else None),
                ("EncodingType", request.parameters.get("encoding-type") or None),
                ("IsTruncated", page.truncated),
                *_contents(page, encode, site.owner()),
            ),
        )
    )


async def list_objects_v2(site: Site, request: Request) -> Reply:
    """API_ListObjectsV2. A continuation token outweighs start-after."""
    start_after = request.parameters.get("start-after", "")
    delimiter = request.parameters.get("delimiter", "")
    encode = _encoder(check_encoding_type(request))
    after = start_after.encode()
    token = request.parameters.get("continuation-token")
    if token is not None:
        after = decode_token(token, "continuation-token")
    limit, page = await _page(site, request, after)
    owner = site.owner() if request.parameters.get("fetch-owner") == "true" else None
    return xml_reply(
        xml.document(
            "ListBucketResult",
            (
                ("Name", request.target.bucket),
                ("Prefix", encode(request.parameters.get("prefix", ""))),
                ("StartAfter", encode(start_after) if start_after else None),
                ("ContinuationToken", token),
                ("NextContinuationToken", encode_token(page.last) if page.truncated else None),
                ("KeyCount", len(page.rows) + len(page.prefixes)),
                ("MaxKeys", limit),
                ("Delimiter", encode(delimiter) if delimiter else None),
                ("EncodingType", request.parameters.get("encoding-type") or None),
                ("IsTruncated", page.truncated),
                *_contents(page, encode, owner),
            ),
        )
    )


async def _page(site: Site, request: Request, after: bytes) -> tuple[int, Page[ListedObject]]:
    bucket = site.bucket(request)
    limit = request.number("max-keys", default=MAX_KEYS, lowest=0, highest=MAX_KEYS)
    page = await site.workers.run(
        functools.partial(
            site.storage.list_objects,
            bucket,
            prefix=request.parameters.get("prefix", "").encode(),
            delimiter=request.parameters.get("delimiter", "").encode(),
            after=after,
            limit=limit,
        )
    )
    return limit, page


def _encoder(url: bool) -> Encoder:
    return functools.partial(quote, safe="/-_.~*") if url else str


def _contents(page: Page[ListedObject], encode: Encoder, owner: Iterable[xml.Node] | None) -> Iterable[xml.Node]:
    for row in page.rows:
        yield (
            "Contents",
            (
                ("Key", encode(row.key.decode())),
                ("LastModified", times.iso(row.modified_s)),
                ("ETag", f'"{row.etag}"'),
                ("ChecksumAlgorithm", row.algorithm),
                ("ChecksumType", row.checksum_kind),
                ("Size", row.size),
                ("Owner", owner),
                ("StorageClass", "STANDARD"),
            ),
        )
    for prefix in page.prefixes:
        yield "CommonPrefixes", (("Prefix", encode(prefix.decode("utf-8", "replace"))),)
