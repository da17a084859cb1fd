"""What tapefs.toml says of TAF's settings, and how its `.env` becomes part of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from tapefs.errors import UsageError


class TafSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What tasks have that are made by TAF's calls and do not say it, and where TAF's `.env` is."""

    #: Relative to the state folder; empty: none is read.
    env: str = ""
    codec: Literal["zstd", "pgzip", "tar", "py7zr", "7zip_command"] = "zstd"
    #: None: the codec's own.
    level: Annotated[int, Meta(ge=0, le=22)] | None = None
    retention_days: Annotated[int, Meta(ge=0, le=36_525)] = 180
    #: Least level of what is logged; the environment's TAPEFS_LOG counts more.
    log_level: Literal["", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = ""
    #: What of the `.env` means nothing here; not to be set.
    unknown: tuple[str, ...] = ()


def with_environment(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return settings with what the `.env` that they name says besides. Raises ValueError without any value of it."""
    taf = raw.get("taf")
    if not isinstance(taf, dict):
        return raw
    if "unknown" in taf:
        raise ValueError("[taf] unknown is not to be set")
    if not isinstance(taf.get("env"), str) or not taf["env"]:
        return raw
    from tapefs.taf.env import understand  # Hardly anybody has one.

    path = folder / taf["env"]
    try:
        found = understand(path.read_text())
    except UsageError as error:
        raise ValueError(f"{path}: {error}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text in UTF-8") from None
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    merged = dict(raw)
    for section, values in found.sections.items():
        said = merged.get(section, {})
        merged[section] = {**values, **said} if isinstance(said, dict) else said
    merged["taf"] = {**merged["taf"], "unknown": list(found.unknown)}
    if found.gateway is not None and isinstance(merged.get("notify", []), list):
        merged["notify"] = [*merged.get("notify", []), found.gateway]
    return merged
