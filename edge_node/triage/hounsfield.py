"""Stored values as Hounsfield units."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Shorts = NDArray[np.int16]


def to_hu(stored: NDArray[np.generic], slope: float, intercept: float, out: Shorts | None = None) -> Shorts:
    """Stored values to int16 HU, clipped to -1024..3071 (padding below air becomes air), into `out` if it is given.

    MONOCHROME1 changes what is shown, not what was measured (PS3.3 C.7.6.3.1.2): it plays no part here.
    """
    made: Shorts = np.empty(stored.shape, np.int16) if out is None else out
    if slope != 1 or not float(intercept).is_integer():
        scaled = stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
        made[...] = np.clip(np.rint(scaled), -1024, 3071)
        return made
    low, high = -1024 - int(intercept), 3071 - int(intercept)
    narrow = stored.dtype in (np.uint16, np.int16)
    kind = np.iinfo(np.uint16 if stored.dtype == np.uint16 else np.int16)
    if not narrow or low > kind.max or high < kind.min:
        made[...] = np.clip(stored.astype(np.int64) + int(intercept), -1024, 3071)
        return made
    # Without a wider copy: what is left between the limits is in range once the intercept is added, so that a sum that
    # runs over in between comes out right.
    lowest, highest = stored.dtype.type(max(low, kind.min)), stored.dtype.type(min(high, kind.max))
    np.clip(stored, lowest, highest, out=made.view(stored.dtype))
    made += np.int16((int(intercept) + 32768) % 65536 - 32768)
    return made
