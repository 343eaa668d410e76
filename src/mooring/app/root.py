"""The root key as the processes that check signatures take it."""

from mooring.domain.ids import Scope
from mooring.domain.routing import Credential
from mooring.identity import credentials, role
from mooring.settings import Settings


def scope(settings: Settings) -> Scope:
    """The one account and region that this server serves."""
    return Scope(account=settings.account_id, region=settings.region)


def credential(settings: Settings) -> Credential:
    """Read from the data directory. Blocking. Raises CredentialsError, OSError."""
    keys, _ = credentials.load_or_create(settings.data_dir)
    return Credential(
        access_key=keys.access_key,
        secret_key=keys.secret_key,
        account=settings.account_id,
        arn=role.root_arn(scope(settings)),
    )
