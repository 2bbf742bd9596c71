"""What a person should look at before it becomes trouble: the disk, the store's map, the clock, the secrets. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from hengd.store import Figures
from henge_protocol.errors import HengeError

NEARLY_FULL: Final = 0.9
LOW_DISK_BYTES: Final = 64 * 1024 * 1024


def warnings_of(figures: Figures, data_dir: str, troubles: Iterable[HengeError | None]) -> list[str]:
    """Each warning as a sentence; none if all is well."""
    warnings = []
    if figures.free_disk_bytes < LOW_DISK_BYTES:
        warnings.append(f"only {figures.free_disk_bytes // 1024} KiB are free on the disk of {data_dir}")
    if figures.used_bytes > NEARLY_FULL * figures.map_bytes:
        warnings.append(f"the store's map is more than {100 * NEARLY_FULL:.0f} % full")
    if figures.last_error:
        warnings.append(f"the last commit that failed said: {figures.last_error}")
    return warnings + [f"{trouble.message} ({trouble.cure})" for trouble in troubles if trouble is not None]
