"""The shared library and its functions, as crosspoint.h declares them."""

import ctypes
import os
import pathlib
from ctypes import POINTER, byref, c_char_p, c_double, c_float, c_int32, c_int64, c_uint32, c_void_p

INTERFACE = 1


class Struct(ctypes.Structure):
    """A struct that begins with its size and version."""

    @classmethod
    def new(cls, **fields):
        value = cls.from_buffer_copy(cls._empty)
        for name, number in fields.items():
            setattr(value, name, number)
        return value


class Error(Struct):
    _fields_ = [
        ("size", c_uint32),
        ("version", c_uint32),
        ("status", c_int32),
        ("rank", c_int32),
        ("is_agreed", c_int32),
        ("reserved", c_int32),
        ("name", c_char_p),
        ("operation", c_char_p),
        ("argument", c_char_p),
        ("message", c_char_p),
        ("text", c_char_p),
    ]


class FabricOptions(Struct):
    _fields_ = [
        ("size", c_uint32),
        ("version", c_uint32),
        ("deadline", c_double),
        ("messages_only", c_int32),
        ("reserved", c_int32),
    ]


class Rows(Struct):
    _fields_ = [
        ("size", c_uint32),
        ("version", c_uint32),
        ("data", c_void_p),
        ("rows", c_int64),
        ("columns", c_int64),
        ("stride", c_int64),
        ("type", c_int32),
        ("reserved", c_int32),
    ]


class Routing(Struct):
    _fields_ = [
        ("size", c_uint32),
        ("version", c_uint32),
        ("experts", c_void_p),
        ("weights", c_void_p),
        ("tokens", c_int64),
        ("top_k", c_int32),
        ("reserved", c_int32),
        ("labels", c_void_p),
    ]


class Statistics(Struct):
    _fields_ = [
        ("size", c_uint32),
        ("version", c_uint32),
        ("dispatches", c_int64),
        ("rows_routed", c_int64),
        ("rows_sent", c_int64),
        ("wire_bytes", c_int64 * 4),
        ("node_bytes", c_int64 * 4),
        ("uncompressed_bytes", c_int64 * 4),
        ("local_bytes", c_int64 * 4),
        ("residual_squared", c_double),
        ("token_squared", c_double),
        ("hash_seconds", c_double),
        ("cluster_seconds", c_double),
        ("encode_seconds", c_double),
        ("skew_seconds", c_double),
        ("wait_seconds", c_double),
        ("decode_seconds", c_double),
        ("policy_seconds", c_double),
        ("slowest_rank", c_int64),
        ("peak_buffer_bytes", c_int64),
    ]


for _struct in (Error, FabricOptions, Rows, Routing, Statistics):
    _struct._empty = bytes(_struct(size=ctypes.sizeof(_struct), version=INTERFACE))

Check = ctypes.CFUNCTYPE(c_int32, c_void_p)

_handle = c_void_p
_out = POINTER(c_void_p)
_functions = {
    "last_error": [POINTER(Error)],
    "cluster_create": [c_int32, c_int32, POINTER(FabricOptions), _out],
    "cluster_fabric": [_handle, c_int32, _out],
    "fabric_world": [POINTER(FabricOptions), _out],
    "fabric_from_communicator": [c_int64, POINTER(FabricOptions), _out],
    "fabric_rank": [_handle, POINTER(c_int32), POINTER(c_int32)],
    "fabric_set_deadline": [_handle, c_double],
    "fabric_on_wait": [_handle, Check, c_void_p],
    "fabric_barrier": [_handle],
    "fabric_allreduce": [_handle, c_void_p, c_int64],
    "fabric_exchange": [_handle, c_void_p, c_void_p, c_void_p, c_void_p],
    "fabric_finalize": [_handle],
    "fabric_abort": [_handle, c_int32, c_char_p],
    "fabric_leave": [_handle, c_char_p],
    "exchange_create": [_handle, c_int64, c_int64, c_int32, c_char_p, _out],
    "exchange_local_experts": [_handle, POINTER(c_int64), POINTER(c_int64)],
    "exchange_statistics": [_handle, POINTER(Statistics)],
    "exchange_reset_statistics": [_handle],
    "exchange_settle": [_handle],
    "exchange_save": [_handle, c_char_p, c_int64, POINTER(c_int64)],
    "exchange_restore": [_handle, c_char_p],
    "exchange_set_adapts": [_handle, c_int32],
    "exchange_refuse_begin": [_handle, _handle, c_int32, c_char_p, c_char_p, _out],
    "dispatch_begin": [_handle, POINTER(Rows), POINTER(Routing), _out, _out],
    "combine_begin": [_handle, _handle, POINTER(Rows), POINTER(Rows), _out],
    "combine_backward_begin": [_handle, _handle, POINTER(Rows), POINTER(Rows), _out],
    "dispatch_backward_begin": [_handle, _handle, POINTER(Rows), POINTER(Rows), _out],
    "pending_finish": [_handle],
    "handle_rows": [_handle, POINTER(Rows)],
    "handle_rows_per_expert": [_handle, c_void_p, c_int64],
    "handle_outputs": [_handle, POINTER(Rows)],
    "handle_row_gradients": [_handle, POINTER(Rows)],
    "handle_weight_gradients": [_handle, c_void_p, c_int64],
    "xla_exchange": [_handle, POINTER(c_int64)],
}


#: The library that the package carries; CROSSPOINT_LIBRARY names another.
path = pathlib.Path(
    os.environ.get("CROSSPOINT_LIBRARY") or pathlib.Path(__file__).parent / f"lib/libcrosspoint.so.{INTERFACE}"
)


def _load():
    try:
        # MPI's own plug-ins look for its symbols among those of the process.
        library = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise ImportError(f"crosspoint: {error}: install the package with pip, or set CROSSPOINT_LIBRARY") from error
    for name, arguments in _functions.items():
        function = getattr(library, "crosspoint_" + name)
        function.argtypes = arguments
        function.restype = c_int32
    for name in ("cluster_free", "cluster_cancel", "fabric_free", "exchange_free", "handle_free", "pending_free"):
        function = getattr(library, "crosspoint_" + name)
        function.argtypes = [_handle]
        function.restype = None
    for name in ("version", "mpi_library", "exchange_options", "status_name"):
        getattr(library, "crosspoint_" + name).restype = c_char_p
    library.crosspoint_exchange_options.argtypes = [_handle]
    return library


library = _load()
version = library.crosspoint_version().decode()


class Owned:
    """An object of the library, freed with the last reference."""

    __slots__ = ("pointer", "_free", "__weakref__")

    def __init__(self, pointer, free):
        self.pointer = pointer
        self._free = free

    def __del__(self):
        self._free(self.pointer)


__all__ = ["Check", "Error", "FabricOptions", "Owned", "Routing", "Rows", "Statistics", "byref", "c_float", "library", "version"]
