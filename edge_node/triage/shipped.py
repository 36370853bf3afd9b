"""The model packages that come with edge-node: as trusted as the program, because the program names their cards."""

from __future__ import annotations

from types import MappingProxyType

# Name to sha256 of card.toml, which pins every other file. The scripts that train them print the line to put here.
SHIPPED_CARDS = MappingProxyType(
    {
        "ref-cr-chest": "cd29ece6537360f4adf6f6e1c377c46185fa2231d27674c5b94a96eba2c9caef",
        "ref-ct-body-part": "2edef9c4f56f074b0a5e8348156235112ead49b407956c1b175795d52e2a530b",
        "ref-ct-head-hyperdensity": "d009f4519666303a37fccd804f8dc6651ee8d5833313f40350b650523489ba25",
    }
)
