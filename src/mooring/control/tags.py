"""AddTags, ListTags, DeleteTags, and the Tags member of every Create. → hosting.md section 10.5."""

from collections import Counter
from collections.abc import Iterable

from mooring.control import texts
from mooring.control.context import Context
from mooring.domain.call import Caller, Params
from mooring.domain.errors import ValidationException
from mooring.domain.ids import Arn
from mooring.domain.listing import Cursor
from mooring.domain.tags import MAX_TAGS, Tag
from mooring.store.base import Conflict, NotFound

_DEFAULT_PAGE = 50


def tags_from(members: Iterable[Params]) -> tuple[Tag, ...]:
    """A Tags member. Raises ValidationException for reserved and repeated keys."""
    tags = tuple(Tag(key=member["Key"], value=member["Value"]) for member in members)
    for key, count in Counter(tag.key for tag in tags).items():
        if key.lower().startswith("aws:"):
            raise ValidationException(f'Tag keys that start with "aws:" are reserved; the key "{key}" cannot be set.')
        if count > 1:
            raise ValidationException(f'Duplicate tag key found: the key "{key}" is given {count} times.')
    return tags


def own_arn(caller: Caller, arn: str) -> Arn:
    """The ARN as it is stored. Raises ValidationException for other accounts' and regions' resources."""
    parts = arn.split(":", 5)  # arn:partition:sagemaker:region:account:type/name
    if len(parts) != 6 or parts[3:5] != [caller.scope.region, caller.scope.account]:
        raise texts.no_such_resource()
    return Arn(arn.lower())


class Tags:
    """The operations."""

    def __init__(self, context: Context) -> None:
        self._store = context.store
        self._tokens = context.tokens

    async def add(self, caller: Caller, params: Params) -> Params:
        """AddTags."""
        arn = own_arn(caller, params["ResourceArn"])
        try:
            now = await self._store.put_tags(arn, tags_from(params["Tags"]), limit=MAX_TAGS)
        except NotFound:
            raise texts.no_such_resource() from None
        except Conflict:
            raise ValidationException(f"A resource can have at most {MAX_TAGS} tags.") from None
        return {"Tags": [{"Key": key, "Value": value} for key, value in now.items()]}

    async def list(self, caller: Caller, params: Params) -> Params:
        """ListTags."""
        arn = own_arn(caller, params["ResourceArn"])
        tags = await self._store.get_tags(arn)
        if tags is None:
            raise texts.no_such_resource()
        query = {"": "ListTags", "ResourceArn": arn}
        after = self._tokens.read(query, params["NextToken"]).name if params.get("NextToken") else None
        keys = [key for key in tags if after is None or key > after]
        shown = keys[: params.get("MaxResults", _DEFAULT_PAGE)]
        answer: Params = {"Tags": [{"Key": key, "Value": tags[key]} for key in shown]}
        if len(shown) < len(keys):
            answer["NextToken"] = self._tokens.write(query, Cursor(value=shown[-1], name=shown[-1]))
        return answer

    async def delete(self, caller: Caller, params: Params) -> Params:
        """DeleteTags."""
        try:
            await self._store.remove_tags(own_arn(caller, params["ResourceArn"]), params["TagKeys"])
        except NotFound:
            raise texts.no_such_resource() from None
        return {}
