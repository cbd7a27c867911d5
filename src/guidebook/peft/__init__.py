"""Adapters as tuners of PEFT. Importing this package is what makes PEFT load them.

The one place on PEFT's internals: `register_peft_method` accepts only names of PEFT's own enumeration, so the tuners
enter PEFT's three mappings directly. That is why `peft` is pinned; `tests/adapters/test_peft_facts.py` is the canary.
"""

from __future__ import annotations

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

from guidebook.peft.bottleneck import BottleneckConfig, BottleneckLayer, BottleneckModel, BottleneckType
from guidebook.peft.invertible import InvertibleConfig, InvertibleLayer, InvertibleModel, InvertibleType
from guidebook.peft.low_rank import lean
from guidebook.peft.wrapper import BASE_ROW, Wrapper, refuse_merge

__all__ = [
    "BASE_ROW",
    "BottleneckConfig",
    "BottleneckLayer",
    "BottleneckModel",
    "BottleneckType",
    "InvertibleConfig",
    "InvertibleLayer",
    "InvertibleModel",
    "InvertibleType",
    "Wrapper",
    "lean",
    "refuse_merge",
]

for _key, _config, _model in (
    (BottleneckType.BOTTLENECK, BottleneckConfig, BottleneckModel),
    (InvertibleType.INVERTIBLE, InvertibleConfig, InvertibleModel),
):
    PEFT_TYPE_TO_CONFIG_MAPPING[_key] = _config
    PEFT_TYPE_TO_TUNER_MAPPING[_key] = _model
    PEFT_TYPE_TO_PREFIX_MAPPING[_key] = _model.prefix
