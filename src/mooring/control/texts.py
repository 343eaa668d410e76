"""The service's own words. Tools match on them (hosting.md 10.3): change nothing here."""

from mooring.domain.errors import ValidationException
from mooring.domain.ids import Arn, Scope, sagemaker_arn

_NOUNS = {"model": "model", "endpoint-config": "endpoint configuration", "endpoint": "endpoint"}


def could_not_find(scope: Scope, kind: str, name: str) -> ValidationException:
    """`kind` as in the ARN."""
    return ValidationException(f'Could not find {_NOUNS[kind]} "{sagemaker_arn(scope, kind, name)}".')


def already_existing(scope: Scope, kind: str, name: str) -> ValidationException:
    """`kind` as in the ARN."""
    return ValidationException(f'Cannot create already existing {_NOUNS[kind]} "{sagemaker_arn(scope, kind, name)}".')


def in_progress(arn: Arn) -> ValidationException:
    """Busy with an earlier change."""
    return ValidationException(f'Cannot update in-progress endpoint "{arn}".')


def no_model_data(uri: str) -> ValidationException:
    """CreateModel."""
    return ValidationException(f"Could not find model data at {uri}.")


def no_access_to_model_data(uri: str, role: str, region: str) -> ValidationException:
    """CreateModel."""
    return ValidationException(
        f'Could not access model data at {uri}. Please ensure that the role "{role}" exists and that its trust '
        'relationship policy allows the action "sts:AssumeRole" for the service principal "sagemaker.amazonaws.com". '
        f'Also ensure that the role has "s3:GetObject" permissions and that the object is located in {region}. '
        "If your Model uses multiple models or uncompressed models, please ensure that the role has "
        '"s3:ListBucket" permission.'
    )


def no_such_resource() -> ValidationException:
    """AddTags, ListTags, DeleteTags."""
    return ValidationException("Resource does not exist.")
