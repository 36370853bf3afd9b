"""The model packages that come with edge-node: as trusted as the program, because the program names their cards."""

from __future__ import annotations

from types import MappingProxyType

# Name to sha256 of card.toml, which pins every other file. scripts/train_reference_model prints the line to put here.
SHIPPED_CARDS = MappingProxyType(
    {
        "ref-ct-head-hyperdensity": "d009f4519666303a37fccd804f8dc6651ee8d5833313f40350b650523489ba25",
    }
)
