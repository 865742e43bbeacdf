/** Sets the last error of the calling thread: KV_ERROR(code, format, ...). */
#define KV_ERROR(code, ...) kv_set_error((code), __FILE__, __LINE__, __func__, __VA_ARGS__)

/** Writes a log line: KV_LOG_INFO_MSG(format, ...). */
#define KV_LOG_DEBUG_MSG(...) kv_log(KV_LOG_DEBUG, __FILE__, __LINE__, __func__, __VA_ARGS__)
#define KV_LOG_INFO_MSG(...) kv_log(KV_LOG_INFO, __FILE__, __LINE__, __func__, __VA_ARGS__)
#define KV_LOG_WARN_MSG(...) kv_log(KV_LOG_WARN, __FILE__, __LINE__, __func__, __VA_ARGS__)
#define KV_LOG_ERROR_MSG(...) kv_log(KV_LOG_ERROR, __FILE__, __LINE__, __func__, __VA_ARGS__)
#define KV_LOG_FATAL_MSG(...) kv_log(KV_LOG_FATAL, __FILE__, __LINE__, __func__, __VA_ARGS__)

/** If the condition is false: sets the last error and returns the code from the function where this stands.
 * KV_CHECK(condition, code, format, ...) */
#define KV_CHECK(condition, code, ...)   \
    do {                                 \
        if (!(condition)) {              \
            int kv_check_code_ = (code); \
            KV_ERROR(kv_check_code_, __VA_ARGS__); \
            return kv_check_code_;       \
        }                                \
    } while (0)

/** As KV_CHECK, with KV_ERR_NULL_POINTER, for a pointer that must not be NULL: KV_CHECK_NULL(pointer, format, ...) */
#define KV_CHECK_NULL(pointer, ...) KV_CHECK((pointer) != NULL, KV_ERR_NULL_POINTER, __VA_ARGS__)

/** If the condition is false: logs an error, and goes on. KV_CHECK_LOG(condition, format, ...) */
#define KV_CHECK_LOG(condition, ...)       \
    do {                                   \
        if (!(condition)) {                \
            KV_LOG_ERROR_MSG(__VA_ARGS__); \
        }                                  \
    } while (0)
