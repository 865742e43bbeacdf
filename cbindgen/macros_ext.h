/** The version of this header as a text; kv_batch_version() is that of the library. */
#define KV_BATCH_VERSION "@VERSION@"
