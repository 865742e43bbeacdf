#!/usr/bin/env python3
"""kvbatch_ctypes.py: the library from Python, with ctypes alone: put, get with a callback, read a value.

    python3 examples-c/kvbatch_ctypes.py target/release/libkvbatch.so [STORE]

STORE is a directory (made if missing) or "memory:"; without it the environment variable KVBATCH_STORE decides,
else ./kvbatch-data.
"""
import ctypes
import os
import sys
from ctypes import CFUNCTYPE, POINTER, Structure, byref, c_char_p, c_int, c_size_t, c_uint32, c_void_p

KV_SUCCESS = 0
KV_ERR_KEY_NOT_FOUND = 29


class Operation(Structure):
    """struct kv_async_batch_operation_s; key and value are bytes of a given length, so they are taken as addresses."""

    _fields_ = [
        ("op_type", c_int),
        ("key", c_void_p),
        ("key_len", c_size_t),
        ("value", c_void_p),
        ("value_len", c_size_t),
        ("result_code", c_int),
        ("user_data", c_void_p),
    ]


class Error(Structure):
    """The beginning of struct kv_error_s."""

    _fields_ = [("code", c_int), ("message", ctypes.c_char * 256)]


OnOperation = CFUNCTYPE(None, POINTER(Operation), c_int, c_void_p)


def load(path):
    """The library, with the types of what is used here: without them ctypes would cut handles to 32 bits."""
    lib = ctypes.CDLL(path)
    bytes_in = [c_void_p, c_char_p, c_size_t]
    for name, result, arguments in [
        ("kv_async_batch_manager_create", c_void_p, [c_void_p]),
        ("kv_async_batch_manager_start", c_int, [c_void_p]),
        ("kv_async_batch_manager_stop", c_int, [c_void_p]),
        ("kv_async_batch_manager_destroy", None, [c_void_p]),
        ("kv_async_batch_create", c_void_p, [c_void_p, c_size_t]),
        ("kv_async_batch_put", c_int, bytes_in + [c_char_p, c_size_t, OnOperation, c_void_p]),
        ("kv_async_batch_get", c_int, bytes_in + [POINTER(c_void_p), POINTER(c_size_t), OnOperation, c_void_p]),
        ("kv_async_batch_submit", c_int, [c_void_p, c_void_p, c_void_p]),
        ("kv_async_batch_wait", c_int, [c_void_p, c_uint32]),
        ("kv_async_batch_destroy", None, [c_void_p]),
        ("kv_get_last_error", POINTER(Error), []),
        ("kv_get_error_name", c_char_p, [c_int]),
    ]:
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


def main():
    """Puts two keys, reads them and a third, one of them through out-pointers."""
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    if len(sys.argv) > 2:
        os.environ["KVBATCH_STORE"] = sys.argv[2]
    lib = load(sys.argv[1])

    def must(code):
        if code != KV_SUCCESS:
            error = lib.kv_get_last_error().contents
            sys.exit(f"{lib.kv_get_error_name(code).decode()}: {error.message.decode(errors='replace')}")

    def must_have(handle):
        if not handle:
            must(lib.kv_get_last_error().contents.code)
        return handle

    manager = must_have(lib.kv_async_batch_manager_create(None))
    must(lib.kv_async_batch_manager_start(manager))

    nothing = OnOperation()  # NULL
    batch = must_have(lib.kv_async_batch_create(manager, 10))
    ada, grace = "Ada, with \0 and ü".encode(), b"Grace"
    must(lib.kv_async_batch_put(batch, b"user_1", 6, ada, len(ada), nothing, None))
    must(lib.kv_async_batch_put(batch, b"user_2", 6, grace, len(grace), nothing, None))
    must(lib.kv_async_batch_submit(batch, None, None))
    must(lib.kv_async_batch_wait(batch, 5000))
    lib.kv_async_batch_destroy(batch)

    seen = {}

    # Comes from a thread of the library, or from the one that waits; ctypes takes the interpreter's lock for it. It is kept
    # in a variable: Python must not free it while the library may still call it.
    @OnOperation
    def on_read(operation, result, _user_data):
        op = operation.contents
        key = ctypes.string_at(op.key, op.key_len)
        seen[key] = ctypes.string_at(op.value, op.value_len) if result == KV_SUCCESS else result

    batch = must_have(lib.kv_async_batch_create(manager, 10))
    value, value_len = c_void_p(), c_size_t()
    must(lib.kv_async_batch_get(batch, b"user_1", 6, None, None, on_read, None))
    must(lib.kv_async_batch_get(batch, b"user_2", 6, byref(value), byref(value_len), on_read, None))
    must(lib.kv_async_batch_get(batch, b"user_3", 6, None, None, on_read, None))
    must(lib.kv_async_batch_submit(batch, None, None))
    must(lib.kv_async_batch_wait(batch, 5000))
    through_pointers = ctypes.string_at(value, value_len.value)  # a copy: the library's bytes go with the batch
    lib.kv_async_batch_destroy(batch)

    must(lib.kv_async_batch_manager_stop(manager))
    lib.kv_async_batch_manager_destroy(manager)

    for key, what in seen.items():
        print(f"{key.decode()}: {what!r}")
    if seen != {b"user_1": ada, b"user_2": grace, b"user_3": KV_ERR_KEY_NOT_FOUND} or through_pointers != grace:
        sys.exit("what was read is CHANGED")
    print("what was read is as it was stored")


if __name__ == "__main__":
    main()
