"""What is used of libiscsi.so.7, by ctypes.

Calls give the interpreter free. A context is used by one thread at a time.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_size_t, c_ssize_t, c_ubyte, c_uint, c_void_p
from functools import cache

from drivers.errors import DeviceFailed

NAME = "libiscsi.so.7"

SESSION_NORMAL = 2
DIGEST_NONE = 0

XFER_NONE, XFER_READ, XFER_WRITE = 0, 1, 2
RESIDUAL_UNDERFLOW = 1

#: Statuses that are no device's: they say what became of the way to it.
STATUS_REDIRECT = 0x101
STATUS_CANCELLED = 0x0F000000
STATUS_ERROR = 0x0F000001
STATUS_TIMEOUT = 0x0F000002

#: Context, status, data of the command, what was given with the call.
Callback = CFUNCTYPE(None, c_void_p, c_int, c_void_p, c_void_p)


class Task(Structure):
    """The head of `struct scsi_task`, as far as it is read."""

    _fields_ = (
        ("status", c_int),
        ("cdb_size", c_int),
        ("xfer_dir", c_int),
        ("expxferlen", c_int),
        ("cdb", c_ubyte * 16),
        ("residual_status", c_int),
        ("residual", c_size_t),
        # 16 bytes: its bit-fields and what follows them share one word, which ctypes would lay out otherwise.
        ("sense", c_uint * 4),
        ("datain_size", c_int),
        ("datain_data", c_void_p),
    )


class _Buffer(Structure):
    """`Py_buffer`, which is part of Python's stable interface."""

    _fields_ = (
        ("buf", c_void_p),
        ("obj", c_void_p),
        ("len", c_ssize_t),
        ("itemsize", c_ssize_t),
        ("readonly", c_int),
        ("ndim", c_int),
        ("format", c_char_p),
        ("shape", c_void_p),
        ("strides", c_void_p),
        ("suboffsets", c_void_p),
        ("internal", c_void_p),
    )


_SIMPLE, _WRITABLE = 0, 1
_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = (ctypes.py_object, POINTER(_Buffer), c_int)
_get_buffer.restype = c_int
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = (POINTER(_Buffer),)
_release_buffer.restype = None


class Held:
    """Memory of a bytes-like object, held in its place for a device to read or, if `writable`, to fill."""

    def __init__(self, data: bytes | memoryview, *, writable: bool) -> None:
        """Hold it. Raises BufferError when it is read-only and should not be, or in pieces."""
        self._buffer = _Buffer()
        _get_buffer(data, ctypes.byref(self._buffer), _WRITABLE if writable else _SIMPLE)
        #: Where it lies; None for none.
        self.address: int | None = self._buffer.buf
        self.size_bytes: int = self._buffer.len

    def release(self) -> None:
        """Let go of it; once."""
        _release_buffer(ctypes.byref(self._buffer))


#: Result and arguments of each function; `context` and `task` are plain pointers.
_FUNCTIONS: dict[str, tuple[type | None, tuple[Callable[..., object] | type, ...]]] = {
    "iscsi_create_context": (c_void_p, (c_char_p,)),
    "iscsi_destroy_context": (c_int, (c_void_p,)),
    "iscsi_set_targetname": (c_int, (c_void_p, c_char_p)),
    "iscsi_set_session_type": (c_int, (c_void_p, c_int)),
    "iscsi_set_header_digest": (c_int, (c_void_p, c_int)),
    "iscsi_set_initiator_username_pwd": (c_int, (c_void_p, c_char_p, c_char_p)),
    "iscsi_set_target_username_pwd": (c_int, (c_void_p, c_char_p, c_char_p)),
    "iscsi_set_isid_random": (c_int, (c_void_p, c_uint, c_uint)),
    "iscsi_set_noautoreconnect": (None, (c_void_p, c_int)),
    "iscsi_get_error": (c_char_p, (c_void_p,)),
    "iscsi_get_target_address": (c_char_p, (c_void_p,)),
    "iscsi_connect_async": (c_int, (c_void_p, c_char_p, Callback, c_void_p)),
    "iscsi_login_async": (c_int, (c_void_p, Callback, c_void_p)),
    "iscsi_logout_async": (c_int, (c_void_p, Callback, c_void_p)),
    "iscsi_get_fd": (c_int, (c_void_p,)),
    "iscsi_which_events": (c_int, (c_void_p,)),
    "iscsi_service": (c_int, (c_void_p, c_int)),
    "iscsi_scsi_command_async": (c_int, (c_void_p, c_int, c_void_p, Callback, c_void_p, c_void_p)),
    "scsi_create_task": (c_void_p, (c_int, c_char_p, c_int, c_int)),
    "scsi_free_scsi_task": (None, (c_void_p,)),
    "scsi_task_add_data_in_buffer": (c_int, (c_void_p, c_int, c_void_p)),
    "scsi_task_add_data_out_buffer": (c_int, (c_void_p, c_int, c_void_p)),
}


@cache
def libiscsi() -> ctypes.CDLL:
    """Return the library with its functions declared. Raises DeviceFailed when it is not installed."""
    try:
        library = ctypes.CDLL(NAME)
    except OSError as error:
        raise DeviceFailed(
            f"iSCSI needs the library {NAME} ({error}): install it, on Debian and Ubuntu by `apt-get install libiscsi7`"
        ) from None
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
