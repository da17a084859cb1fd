"""Keeps idle processors from going to sleep while requests come one after the other.

A walker sleeps until its request is answered, and its processor with it; on a virtual machine that has to halt, waking
it takes some 30 µs, longer than most answers. The kernel's interface for services that cannot afford that is PM QoS:
whoever holds /dev/cpu_dma_latency open may state the latency he can bear, and 0 has idle processors wait in a loop.
Measured over walks of 124,000 names in 12,800 directories on 2 cores: 4.6 to 5.3 times the local walk without it, 3.5
with it. For root only: others get the mount as it is. Blocking for microseconds.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import structlog

LATENCY_DEVICE = Path("/dev/cpu_dma_latency")

_NONE_US = struct.pack("=i", 0)
#: The kernel's default, which is as good as no wish.
_ANY_US = struct.pack("=i", 2_000_000_000)

log = structlog.get_logger("tapefs.mount")


class Wakefulness:
    """The wish to have processors kept awake, which ends with this object or this process."""

    def __init__(self, device: Path = LATENCY_DEVICE) -> None:
        self._fd: int | None = None
        self._is_held = False
        try:
            fd = os.open(device, os.O_WRONLY | os.O_CLOEXEC)
            os.write(fd, _ANY_US)  # opening alone is a wish for 0
            self._fd = fd
        except OSError as error:
            log.info("idle processors are left to sleep", file=str(device), reason=error.strerror)

    def hold(self) -> None:
        """Keep idle processors awake until `release`."""
        if not self._is_held and self._fd is not None:
            self._write(_NONE_US)
            self._is_held = True

    def release(self) -> None:
        """Let them sleep again."""
        if self._is_held:
            self._is_held = False
            self._write(_ANY_US)

    def close(self) -> None:
        """Withdraw the wish for good; harmless twice."""
        fd, self._fd, self._is_held = self._fd, None, False
        if fd is not None:
            os.close(fd)

    def _write(self, wish_us: bytes) -> None:
        if self._fd is None:
            return
        try:
            os.write(self._fd, wish_us)
        except OSError as error:
            log.warning("no say in how deep processors sleep", reason=error.strerror)
            self.close()
