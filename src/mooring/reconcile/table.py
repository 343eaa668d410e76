"""The content of the route table, pure: endpoints' traffic joined with the pools' healthy members and their slots.

    traffic  endpoint → (variant, pool, weight)…     set by reconcile.endpoints
    members  pool → instance → address               set by reconcile.pools, the moment health changes
                      │
                      ▼ compose
                 EndpointRoute…

Joined here so that a dead instance leaves the routes without waiting for its endpoint to be looked at.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mooring.domain.endpoint import EndpointKey
from mooring.domain.ids import EndpointName, PoolId, Scope
from mooring.domain.rollout import Traffic
from mooring.domain.routing import Credential, EndpointRoute, InstanceRoute, VariantRoute
from mooring.reconcile.slots import Slots

Members = Mapping[str, str]  # instance id → address


def owner_of(key: EndpointKey) -> str:
    """An endpoint as the owner of pools: a text, as it is kept in the instances' labels."""
    return f"{key.scope.account}/{key.scope.region}/{key.name}"


def key_of(owner: str) -> EndpointKey | None:
    """The endpoint that owns; None where it is no endpoint."""
    parts = owner.split("/")
    if len(parts) != 3:
        return None
    return EndpointKey(scope=Scope(account=parts[0], region=parts[1]), name=EndpointName(parts[2]))


@dataclass(frozen=True, slots=True)
class VariantKey:
    """What a variant's counters are keyed by: an update keeps them where the variant's name stays."""

    endpoint: EndpointKey
    variant: str


class Table:
    """See the module. Every setter tells whether anything changed."""

    def __init__(self, *, instance_slots: Slots[str], variant_slots: Slots[VariantKey]) -> None:
        self.instance_slots = instance_slots
        self.variant_slots = variant_slots
        self.traffic: dict[EndpointKey, tuple[Traffic, ...]] = {}
        self.members: dict[PoolId, Members] = {}
        self.credentials: tuple[Credential, ...] = ()
        self.serving = False

    def set_traffic(self, key: EndpointKey, traffic: tuple[Traffic, ...] | None) -> bool:
        """None takes the endpoint's route away."""
        if self.traffic.get(key) == traffic:
            return False
        if traffic is None:
            del self.traffic[key]
        else:
            self.traffic[key] = traffic
        return True

    def set_members(self, pool_id: PoolId, members: Members) -> bool:
        """The instances of a pool that may take requests."""
        if self.members.get(pool_id, {}) == members:
            return False
        if members:
            self.members[pool_id] = dict(members)
        else:
            del self.members[pool_id]
        return True

    def compose(self) -> tuple[EndpointRoute, ...]:
        """Every endpoint's route."""
        return tuple(self._routes())

    def _routes(self) -> Iterator[EndpointRoute]:
        for key, traffic in sorted(self.traffic.items(), key=lambda item: owner_of(item[0])):
            yield EndpointRoute(
                account=key.scope.account,
                region=key.scope.region,
                name=key.name,
                variants=tuple(self._variant(key, share) for share in traffic),
            )

    def _variant(self, key: EndpointKey, share: Traffic) -> VariantRoute:
        slot = self.variant_slots.get(VariantKey(key, share.variant))
        assert slot is not None, f"{owner_of(key)}: variant {share.variant} has no slot"
        return VariantRoute(
            name=share.variant,
            slot=slot,
            weight=share.weight,
            instances=tuple(
                InstanceRoute(instance_id=instance_id, slot=self._instance_slot(instance_id), address=address)
                for instance_id, address in sorted(self.members.get(share.pool_id, {}).items())
            ),
        )

    def _instance_slot(self, instance_id: str) -> int:
        slot = self.instance_slots.get(instance_id)
        assert slot is not None, f"instance {instance_id} has no slot"
        return slot
