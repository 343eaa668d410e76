"""Operations on buckets."""

from mooring.objects import names, times, xml
from mooring.objects.attributes import check_plain
from mooring.objects.errors import S3Error, not_implemented
from mooring.objects.exchange import Reply, Request, xml_reply
from mooring.objects.payload import Payload
from mooring.objects.receiving import MAX_DOCUMENT_BYTES, read_document
from mooring.objects.site import Site
from mooring.objects.tokens import decode_token, encode_token

_DEFAULT_REGION = "us-east-1"
_MAX_BUCKETS = 10_000


async def list_buckets(site: Site, request: Request) -> Reply:
    """API_ListBuckets."""
    site.check_owner(request.headers.get("x-amz-expected-bucket-owner"))
    prefix = request.parameters.get("prefix", "")
    region = request.parameters.get("bucket-region", "")
    token = request.parameters.get("continuation-token", "")
    limit = request.number("max-buckets", default=_MAX_BUCKETS, lowest=1, highest=_MAX_BUCKETS)
    after = decode_token(token, "continuation-token").decode() if token else ""
    found = [
        bucket
        for bucket in site.storage.buckets()
        if bucket.name.startswith(prefix) and bucket.name > after and region in ("", bucket.region)
    ]
    page = found[:limit]
    return xml_reply(
        xml.document(
            "ListAllMyBucketsResult",
            (
                ("Owner", site.owner()),
                (
                    "Buckets",
                    [
                        (
                            "Bucket",
                            (
                                ("Name", bucket.name),
                                ("CreationDate", times.iso(bucket.created_s)),
                                ("BucketRegion", bucket.region),
                            ),
                        )
                        for bucket in page
                    ],
                ),
                ("Prefix", prefix or None),
                ("ContinuationToken", encode_token(page[-1].name.encode()) if len(found) > limit else None),
            ),
        )
    )


async def create_bucket(site: Site, request: Request) -> Reply:
    """API_CreateBucket."""
    name = request.target.bucket
    site.check_owner(request.headers.get("x-amz-expected-bucket-owner"))
    check_plain(request.headers)
    if not names.is_bucket_name(name):
        raise S3Error("InvalidBucketName", "The specified bucket is not valid.", fields={"BucketName": name})
    payload = Payload(request, max_bytes=MAX_DOCUMENT_BYTES, default_length=0)
    document = await read_document(request, payload, workers=site.workers)
    region = site.storage.scope.region
    _check_location(_location(document), region)
    created = await site.workers.run(site.storage.create_bucket, name)
    if not created and region != _DEFAULT_REGION:  # there, and only there, making one's own bucket again succeeds
        raise S3Error(
            "BucketAlreadyOwnedByYou",
            "Your previous request to create the named bucket succeeded and you already own it.",
            fields={"BucketName": name},
        )
    return Reply(headers={"location": f"/{name}"})


def _location(document: bytes) -> str:
    if not document:
        return ""
    root = xml.parse(document, "CreateBucketConfiguration")
    location = ""
    for child in root:
        if child.tag != "LocationConstraint":
            raise not_implemented(f"{child.tag} of CreateBucketConfiguration")
        location = (child.text or "").strip()
    return location


def _check_location(location: str, region: str) -> None:
    if location == _DEFAULT_REGION:
        raise S3Error(
            "InvalidLocationConstraint",
            "The specified location-constraint is not valid",
            fields={"LocationConstraint": location},
        )
    if (location or _DEFAULT_REGION) != region:
        raise S3Error(
            "IllegalLocationConstraintException",
            f"The {location or 'unspecified'} location constraint is incompatible for the region specific endpoint this "
            "request was sent to.",
        )


async def head_bucket(site: Site, request: Request) -> Reply:
    """API_HeadBucket."""
    bucket = site.bucket(request)
    return Reply(
        headers={
            "content-type": "application/xml",
            "x-amz-bucket-region": bucket.region,
            "x-amz-access-point-alias": "false",
        }
    )


async def delete_bucket(site: Site, request: Request) -> Reply:
    """API_DeleteBucket."""
    await site.workers.run(site.storage.delete_bucket, site.bucket(request))
    return Reply(status=204)


async def get_bucket_location(site: Site, request: Request) -> Reply:
    """API_GetBucketLocation. The default region is written as nothing."""
    region = site.bucket(request).region
    content = "" if region == _DEFAULT_REGION else xml.escape(region)
    text = f'{xml.DECLARATION}<LocationConstraint xmlns="{xml.NAMESPACE}">{content}</LocationConstraint>'
    return xml_reply(text.encode())


async def get_bucket_versioning(site: Site, request: Request) -> Reply:
    """API_GetBucketVersioning: never switched on here, which S3 says by an empty document."""
    site.bucket(request)
    return xml_reply(xml.document("VersioningConfiguration", ()))
