"""What every operation of S3 does with an authenticated request, one function each, by name. Called by `server`.

Blocking work goes to `Site.workers`; nothing here blocks the loop.
"""

from collections.abc import Awaitable, Callable, Mapping

from mooring.objects import handle_buckets, handle_listings, handle_objects, handle_uploads
from mooring.objects.exchange import Reply, Request
from mooring.objects.site import Site

Handler = Callable[[Site, Request], Awaitable[Reply]]

HANDLERS: Mapping[str, Handler] = {
    "ListBuckets": handle_buckets.list_buckets,
    "CreateBucket": handle_buckets.create_bucket,
    "HeadBucket": handle_buckets.head_bucket,
    "DeleteBucket": handle_buckets.delete_bucket,
    "GetBucketLocation": handle_buckets.get_bucket_location,
    "GetBucketVersioning": handle_buckets.get_bucket_versioning,
    "ListObjects": handle_listings.list_objects,
    "ListObjectsV2": handle_listings.list_objects_v2,
    "PutObject": handle_objects.put_object,
    "CopyObject": handle_objects.copy_object,
    "GetObject": handle_objects.get_object,
    "HeadObject": handle_objects.get_object,
    "DeleteObject": handle_objects.delete_object,
    "DeleteObjects": handle_objects.delete_objects,
    "CreateMultipartUpload": handle_uploads.create_upload,
    "UploadPart": handle_uploads.upload_part,
    "ListParts": handle_uploads.list_parts,
    "ListMultipartUploads": handle_uploads.list_uploads,
    "CompleteMultipartUpload": handle_uploads.complete_upload,
    "AbortMultipartUpload": handle_uploads.abort_upload,
}
