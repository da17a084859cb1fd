"""TAF's calls about settings: /api/system/config, env-config, compression, tape/….

Settings are made by people in tapefs.toml, not over HTTP: a PUT of what is already so is taken, one that would change
something is refused and names what, and where it is set. No secret is shown: MASK stands for one, and means it.
"""

from __future__ import annotations

import shutil
from functools import partial
from typing import TypeVar

import msgspec
import trio
from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from sidecar.http.answers import json_answer
from sidecar.http.callers import Role
from sidecar.http.calls import Call, Query
from sidecar.http.requests import body_of, text_of
from sidecar.service import Service
from sidecar.taf.notification import Said, shown_gateway
from sidecar.taf.system_models import (
    CompressionConfig,
    EnvAnswer,
    EnvConfig,
    SevenZip,
    SystemConfig,
    TapeConfig,
    TapeConfigAnswer,
    TapeState,
)
from sidecar.taf.tape import PAGE, TapeCalls
from sidecar.taf.tape_facts import TapeKnowledge
from sidecar.taf.tape_models import Device, TapeHistory
from sidecar.taf.tape_work import flag_of
from tapefs.codecs import CODECS
from tapefs.codecs.lzma2 import PROGRAMS
from tapefs.errors import NotNow
from tapefs.taf.env import DAYS_A_MONTH

T = TypeVar("T", bound=msgspec.Struct)

_SCAN = tuple(
    Query(name, "taken, and without meaning", bool) for name in ("force_generic", "show_all_paths", "force_rescan")
)


class Scanned(msgspec.Struct, frozen=True):
    """The drives."""

    success: bool
    devices: list[Device]
    count: int
    message: str


class ConfigurationCalls:
    """Settings, as TAF's calls see them."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._knows = TapeKnowledge(service)
        self._tapes = TapeCalls(service)

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        base = "/api/system"
        get = partial(Call, needs=Role.ADMIN)
        put = partial(Call, methods=["PUT"], needs=Role.ADMIN, answer=Said)
        path = (Query("path", "where it may be; it is compared, never run"),)
        return [
            get(f"{base}/config", self.config, answer=SystemConfig),
            put(f"{base}/config", self.set_config, body=SystemConfig),
            get(f"{base}/env-config", self.env_config, answer=EnvAnswer),
            put(f"{base}/env-config", self.set_env_config, body=EnvConfig),
            get(f"{base}/compression", self.compression, answer=CompressionConfig),
            put(f"{base}/compression", self.set_compression, body=CompressionConfig),
            get(f"{base}/compression/check-sevenzip", self.seven_zip, answer=SevenZip, query=path),
            get(f"{base}/tape/config", self.tape_config, answer=TapeConfigAnswer),
            put(f"{base}/tape/config", self.set_tape_config, body=TapeConfig),
            Call(
                f"{base}/tape/test", self.test_tape, methods=["POST"], needs=Role.ADMIN, body=TapeConfig, answer=Said,
            ),
            get(f"{base}/tape/scan", self.scan, answer=Scanned, query=_SCAN),
            get(f"{base}/tape/history", self.history, answer=TapeHistory, query=PAGE),
        ]  # fmt: skip

    # -- settings --------------------------------------------------------------------------------------------------

    async def config(self, request: Request) -> Response:
        """Show TAF's most important settings."""
        return json_answer(self._config())

    async def set_config(self, request: Request) -> Response:
        """Take settings that are so already."""
        body, known = await body_of(request, SystemConfig), self._config()
        known = msgspec.structs.replace(known, retention_months=known.default_retention_months)
        return self._unchanged(body, known)

    def _config(self) -> SystemConfig:
        settings = self._service.home.settings
        gateway = shown_gateway(self._service.notices.delivering.stored.gateway)
        return SystemConfig(
            default_retention_months=settings.taf.retention_days // DAYS_A_MONTH,
            auto_erase_expired=False,
            monthly_backup_cron=None,
            dingtalk_api_url=gateway.dingtalk_api_url,
            dingtalk_api_key=gateway.dingtalk_api_key,
            dingtalk_default_phone=gateway.dingtalk_default_phone,
            scheduler_enabled=self._service.scheduler.is_at_work,
            compression_level=self._level(),
            max_file_size=settings.backup.segment_bytes,
            enable_tape_format_before_full=False,
        )

    async def env_config(self, request: Request) -> Response:
        """Show TAF's other settings; null: it has no meaning here."""
        return json_answer(EnvAnswer(True, self._env()))

    async def set_env_config(self, request: Request) -> Response:
        """Take settings that are so already."""
        return self._unchanged(await body_of(request, EnvConfig), self._env())

    def _env(self) -> EnvConfig:
        settings, config = self._service.home.settings, self._config()
        host, _, port = settings.http.listen.rpartition(":")
        blank = dict.fromkeys(each.name for each in msgspec.structs.fields(EnvConfig))
        known = {
            "app_name": "tapefs",
            "debug": settings.taf.log_level == "DEBUG",
            "environment": "production",
            "web_host": host,
            "web_port": int(port) if port.isdecimal() else None,
            "enable_cors": False,
            "dingtalk_api_url": config.dingtalk_api_url,
            "dingtalk_api_key": config.dingtalk_api_key,
            "dingtalk_default_phone": config.dingtalk_default_phone,
            "default_retention_months": config.default_retention_months,
            "auto_erase_expired": False,
            "max_file_size": config.max_file_size,
            "enable_background_copy_update": False,
            "use_memory_db": False,
            "log_level": settings.taf.log_level or "INFO",
            "enable_tape_format_before_full": False,
        }
        return msgspec.convert(blank | known, EnvConfig)

    async def compression(self, request: Request) -> Response:
        """Show how new tasks are compressed."""
        return json_answer(self._compression())

    async def set_compression(self, request: Request) -> Response:
        """Take settings that are so already."""
        return self._unchanged(await body_of(request, CompressionConfig), self._compression())

    def _compression(self) -> CompressionConfig:
        settings = self._service.home.settings
        threads = settings.backup.threads
        return CompressionConfig(
            compression_method=settings.taf.codec,
            sevenzip_path=_seven_zip(),
            compression_threads=threads,
            compression_command_threads=threads,
            compression_level=self._level(),
            compress_directly_to_tape=not settings.backup.spool,
            pgzip_block_size=None,
            pgzip_threads=threads,
            zstd_threads=threads,
            available_methods=list(CODECS),
            default_sevenzip_paths=[found for name in PROGRAMS if (found := shutil.which(name))],
        )

    def _level(self) -> int:
        taf = self._service.home.settings.taf
        return CODECS[taf.codec].default_level if taf.level is None else taf.level

    async def seven_zip(self, request: Request) -> Response:
        """Tell whether 7-Zip is here."""
        path, wanted = await trio.to_thread.run_sync(_seven_zip), text_of(request, "path")
        if path is None:
            return json_answer(SevenZip(False, "7-Zip is not installed: the package is 7zip or p7zip-full", None))
        if wanted is not None and wanted != path:
            return json_answer(SevenZip(False, f"7-Zip that is used is {path}, not {wanted}", path))
        return json_answer(SevenZip(True, f"7-Zip is here: {path}", path))

    # -- drives ----------------------------------------------------------------------------------------------------

    async def tape_config(self, request: Request) -> Response:
        """Show which drive there is, and how it is written."""
        drives = await trio.to_thread.run_sync(self._knows.devices)
        first = self._service.drives[0]
        told = drives[0]
        info: dict[str, str | int | None] = {
            "drive": first.name,
            "vendor": told.vendor,
            "model": told.model,
            "serial": told.serial,
            "generation": told.generation,
            "state": told.status,
        }
        status = TapeState(not first.health.reason and first.state != "starting", info)
        return json_answer(TapeConfigAnswer(True, self._tape_config(told), status))

    async def set_tape_config(self, request: Request) -> Response:
        """Take settings that are so already."""
        body = await body_of(request, TapeConfig)
        drives = await trio.to_thread.run_sync(self._knows.devices)
        return self._unchanged(body, self._tape_config(drives[0]))

    def _tape_config(self, told: Device) -> TapeConfig:
        settings = self._service.home.settings
        return TapeConfig(
            tape_device_path=told.path,
            tape_drive_letter=None,
            default_block_size=settings.backup.block_size,
            max_volume_size=settings.backup.segment_bytes,
            tape_pool_size=len(self._service.ledger.volumes()),
            tape_check_interval=None,
            auto_tape_cleanup=settings.library.cleaning == "auto",
            itdt_path=None,
            ltfs_tools_dir=None,
            default_device_address=None,
        )

    async def test_tape(self, request: Request) -> Response:
        """Tell whether the drive of that path works; without a path, whether all do."""
        path = (await body_of(request, TapeConfig)).tape_device_path
        drives = await trio.to_thread.run_sync(self._knows.devices)
        tried = [
            each for each, told in zip(self._service.drives, drives, strict=True) if path in (UNSET, None, told.path)
        ]
        if not tried:
            return json_answer(Said(False, f"There is no drive {path}: [library] in tapefs.toml names those that are"))
        broken = [each.health.sentence() for each in tried if each.health.reason]
        if broken:
            return json_answer(Said(False, "; ".join(broken)))
        return json_answer(Said(True, ", ".join(f"{each.name} is {each.state}" for each in tried)))

    async def scan(self, request: Request) -> Response:
        """Show the drives; what is not in tapefs.toml is found by `tapefs doctor`."""
        for query in _SCAN:
            flag_of(request, query.name)
        drives = await trio.to_thread.run_sync(self._knows.devices)
        message = "The drives of tapefs.toml; `tapefs doctor` finds others"
        return json_answer(Scanned(True, drives, len(drives), message))

    async def history(self, request: Request) -> Response:
        """Show who did what with tapes, the newest first."""
        return await self._tapes.history(request)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _unchanged(self, wanted: T, known: T) -> Response:
        """Answer to what changes nothing. Raises NotNow that names what else was wanted, without values."""
        names = [each.name for each in msgspec.structs.fields(wanted)]
        changed = [
            name
            for name in names
            if getattr(wanted, name) not in (UNSET, None) and getattr(wanted, name) != getattr(known, name)
        ]
        if changed:
            raise NotNow(
                f"{', '.join(changed)} cannot be changed over HTTP: set it in tapefs.toml, or in the .env that [taf] "
                "env names, and start the sidecar again; PUT /api/system/notification/config has the gateway"
            )
        return json_answer(Said(True, "All of that is so already; nothing was changed"))


def _seven_zip() -> str | None:
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)
