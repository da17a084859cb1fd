"""A `.env` of TAF's: which of its settings mean something here, and what they are called here. Pure.

`tapefs taf settings FILE` shows it as lines of tapefs.toml; `[taf] env` has it read at every start, and what is in
tapefs.toml counts more. No value is ever told but those that were understood and are no secret.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from tapefs.errors import UsageError
from tapefs.notice_kinds import FLAGS, kinds_switched_on

_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*\Z")
_QUOTED = re.compile(r"""(?P<quote>["'])(?P<text>(?:\\.|(?!(?P=quote)).)*)(?P=quote)\s*(?:\#.*)?\Z""")
#: Threads of the codec that counts.
_THREADS = {"pgzip": "PGZIP_THREADS", "zstd": "ZSTD_THREADS", "7zip_command": "COMPRESSION_COMMAND_THREADS"}
_METHODS = ("pgzip", "py7zr", "7zip_command", "zstd", "tar")
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
#: Of TAF's, in bytes.
SMALLEST_SEGMENT_BYTES = 1024**2
#: TAF counts months; its tasks keep days.
DAYS_A_MONTH = 30

Values = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TafEnvironment:
    """What was found."""

    #: By section of tapefs.toml.
    sections: dict[str, dict[str, object]] = field(default_factory=dict)
    #: Its gateway, as one of `[[notify]]`; None: it names none.
    gateway: dict[str, object] | None = None
    #: Where its drive is, which only an operator can put into `[library]`; empty: it names none.
    device: str = ""
    #: Names that mean nothing here.
    unknown: tuple[str, ...] = ()

    def shown(self) -> str:
        """Return lines of tapefs.toml, without the secret."""
        lines: list[str] = []
        for section, values in self.sections.items():
            lines += [f"[{section}]", *(f"{name} = {_toml(value)}" for name, value in values.items()), ""]
        if self.gateway is not None:
            lines.append("[[notify]]")
            lines += [f"{name} = {_toml(value)}" for name, value in self.gateway.items() if name != "secret"]
            if "secret" in self.gateway:
                lines.append("# secret = the DINGTALK_API_KEY; it is not shown")
            lines.append("")
        if self.device:
            lines += [f"# [library] for {self.device}: see docs/drives.md", ""]
        return "\n".join(lines)

    def warning(self) -> str:
        """Name what means nothing here; empty: nothing."""
        names = ", ".join(self.unknown)
        return f"these mean nothing here: {names}" if names else ""


def parse(text: str) -> dict[str, str]:
    """Return names and values of a `.env`; the last of a name counts. Raises UsageError with the line's number."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.match(line)
        if match is None:
            raise UsageError(f"line {number} is no `NAME=value`")
        found[match[1].upper()] = _value(match[2], number)
    return found


def _value(text: str, number: int) -> str:
    if text[:1] in ("'", '"'):
        quoted = _QUOTED.match(text)
        if quoted is None:
            raise UsageError(f"line {number} has a quotation mark that is not closed")
        inner = quoted["text"]
        return inner if quoted["quote"] == "'" else re.sub(r"\\(.)", _escaped, inner)
    return re.sub(r"(\A|\s+)#.*\Z", "", text)


def _escaped(match: re.Match[str]) -> str:
    return {"n": "\n", "t": "\t", "r": "\r"}.get(match[1], match[1])


def understand(text: str) -> TafEnvironment:
    """Return what a `.env` says. Raises UsageError that names the setting, never its value."""
    values = {name: value for name, value in parse(text).items() if value != ""}
    names: set[str] = set()
    sections: dict[str, dict[str, object]] = {}
    for section, entry, found in _sections(values, names):
        sections.setdefault(section, {})[entry] = found
    gateway = _gateway(values, names)
    names.add("TAPE_DEVICE_PATH")
    device = values.get("TAPE_DEVICE_PATH", "")
    unknown = tuple(sorted(set(values) - names))
    return TafEnvironment(sections, gateway, device, unknown)


def _sections(values: Values, names: set[str]) -> list[tuple[str, str, object]]:
    """Return (section, entry, value) of all that mean something; note the names that were looked at."""
    found: list[tuple[str, str, object]] = []

    def take(name: str, section: str, entry: str, read: Callable[[str, str], object]) -> None:
        names.add(name)
        if name in values:
            found.append((section, entry, read(name, values[name])))

    take("COMPRESSION_METHOD", "taf", "codec", _one_of(_METHODS, str.lower))
    take("COMPRESSION_LEVEL", "taf", "level", _number(0, 22))
    take("DEFAULT_RETENTION_MONTHS", "taf", "retention_days", _months)
    take("LOG_LEVEL", "taf", "log_level", _one_of(_LEVELS, str.upper))
    take("MAX_FILE_SIZE", "backup", "segment_bytes", _number(SMALLEST_SEGMENT_BYTES, 2**50))
    take("DEFAULT_BLOCK_SIZE", "backup", "block_size", _number(4096, 16 * 1024**2))
    method = values.get("COMPRESSION_METHOD", "").lower()
    threads = _THREADS.get(method, "COMPRESSION_THREADS")
    names.update(("COMPRESSION_THREADS", threads))
    chosen = threads if threads in values else "COMPRESSION_THREADS"
    take(chosen, "backup", "threads", _number(0, 1024))
    names.update(("WEB_HOST", "WEB_PORT"))
    if "WEB_HOST" in values or "WEB_PORT" in values:
        port = _number(1, 65535)("WEB_PORT", values.get("WEB_PORT", "8080"))
        host = _host("WEB_HOST", values.get("WEB_HOST", "127.0.0.1"))
        found.append(("http", "listen", f"{host}:{port}"))
    return found


def _gateway(values: Values, names: set[str]) -> dict[str, object] | None:
    names.update(("DINGTALK_API_URL", "DINGTALK_API_KEY", "DINGTALK_DEFAULT_PHONE"))
    url = values.get("DINGTALK_API_URL", "")
    if not url:
        return None
    if not re.match(r"https?://[^\s/@]+(/\S*)?\Z", url):
        raise UsageError("DINGTALK_API_URL is no address that begins with http:// or https://, without a password")
    found: dict[str, object] = {"name": "taf-env", "kind": "dingtalk", "url": url, "language": "zh"}
    if key := values.get("DINGTALK_API_KEY"):
        found["secret"] = key
    if phone := values.get("DINGTALK_DEFAULT_PHONE"):
        found["phones"] = [phone]
    names.add("NOTIFICATION_EVENTS")
    # No pattern at all would mean what is usual here; nothing is ever posted of the kind `test`.
    found["events"] = kinds_switched_on(_flags_off(values.get("NOTIFICATION_EVENTS", "{}"))) or ["test"]
    return found


def _flags_off(text: str) -> list[str]:
    """Return which of TAF's flags are off: those that are not named are on, as TAF has it. Raises UsageError."""
    try:
        flags = msgspec.json.decode(text, type=dict[str, bool])
    except msgspec.MsgspecError as error:
        raise UsageError('NOTIFICATION_EVENTS must be like {"notify_backup_success": true, …}') from error
    if unknown := sorted(set(flags) - set(FLAGS)):
        raise UsageError(f"NOTIFICATION_EVENTS has {', '.join(unknown)}; there are these flags: {', '.join(FLAGS)}")
    return [flag for flag, is_on in flags.items() if not is_on]


def _number(least: int, most: int) -> Callable[[str, str], int]:
    def read(name: str, text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or not least <= int(text) <= most:
            raise UsageError(f"{name} must be a whole number from {least} to {most}")
        return int(text)

    return read


def _months(name: str, text: str) -> int:
    return _number(0, 1200)(name, text) * DAYS_A_MONTH


def _one_of(words: Sequence[str], form: Callable[[str], str]) -> Callable[[str, str], str]:
    def read(name: str, text: str) -> str:
        if form(text) not in words:
            raise UsageError(f"{name} must be one of {', '.join(words)}")
        return form(text)

    return read


def _host(name: str, text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9.:-]{1,253}", text):
        raise UsageError(f"{name} must be a host name or an address")
    return f"[{text}]" if ":" in text else text


def _toml(value: object) -> str:
    """Return a value as TOML has it: JSON's form of numbers, texts and lists is TOML's, too."""
    return json.dumps(value, ensure_ascii=False)
