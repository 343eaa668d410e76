"""UpdateEndpointWeightsAndCapacities, decided: a deployment with other weights and counts. Pure. → hosting.md 6.3."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from mooring.control.endpoint_configs import ALL_ZERO, check_weight
from mooring.domain.call import Params
from mooring.domain.endpoint import Deployment, Variant
from mooring.domain.errors import ValidationException


def changed(serving: Deployment, wishes: Sequence[Params]) -> Deployment:
    """The same deployment (same id, so its pools stay); variants that are not listed keep what they have."""
    by_name = {wish["VariantName"]: wish for wish in wishes}
    for name, count in Counter(wish["VariantName"] for wish in wishes).items():
        if count > 1:
            raise ValidationException(f'The variant name "{name}" was non-unique within the request.')
    unknown = sorted(by_name.keys() - {variant.config.name for variant in serving.variants})
    if unknown:
        raise ValidationException(
            f'The variant name(s) "{", ".join(unknown)}" is/are not present within endpoint configuration '
            f'"{serving.config_name}".'
        )
    variants = tuple(_changed(variant, by_name.get(variant.config.name, {})) for variant in serving.variants)
    if not any(variant.desired_weight > 0 for variant in variants):
        raise ValidationException(ALL_ZERO)
    return replace(serving, variants=variants)


def _changed(variant: Variant, wish: Params) -> Variant:
    name = variant.config.name
    count = wish.get("DesiredInstanceCount", variant.desired_count)
    if count < 1:
        raise ValidationException(
            f'DesiredInstanceCount of variant "{name}" must be at least 1: only inference components scale to 0.'
        )
    weight = check_weight(name, wish.get("DesiredWeight", variant.desired_weight))
    return replace(variant, desired_count=count, desired_weight=weight)
