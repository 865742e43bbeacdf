//! Not compiled: what cbindgen reads of `kv_set_error` and `kv_log`, whose real definitions (src/ffi/variadic.rs) are jumps
//! without arguments.

/// Sets the last error of the calling thread, for programs that use the library's error functions for errors of their own.
/// The macro KV_ERROR fills in file, line and function.
///
/// @param code    one of the KV_ERR_ numbers, or one of your own.
/// @param file    the source file; may be NULL. Cut after 127 bytes.
/// @param line    the line in it.
/// @param func    the function; may be NULL. Cut after 63 bytes.
/// @param format  as for printf, and the arguments it asks for; may be NULL. The message is cut after 255 bytes.
///
/// All strings are copied. Outputs nothing, leaves errno alone.
/// Threads: any; also in a child after fork().
#[no_mangle]
pub extern "C" fn kv_set_error(
    code: c_int,
    file: *const c_char,
    line: c_int,
    func: *const c_char,
    format: *const c_char,
    args: ...
) {
}

/// Writes a line to where kv_error_init() said: "[TIME] [LEVEL] [FILE:LINE] [FUNC] [T-ID] MESSAGE".
/// The macros KV_LOG_DEBUG_MSG and so on fill in file, line and function.
///
/// @param level   KV_LOG_DEBUG to KV_LOG_FATAL; the line is left out if this is below the level of kv_error_init().
/// @param file    the source file; may be NULL.
/// @param line    the line in it.
/// @param func    the function; may be NULL.
/// @param format  as for printf, and the arguments it asks for; may be NULL. The message is cut after 4095 bytes.
///
/// Leaves errno alone. Threads: any; lines of several threads do not mix.
#[no_mangle]
pub extern "C" fn kv_log(level: c_int, file: *const c_char, line: c_int, func: *const c_char, format: *const c_char, args: ...) {}
