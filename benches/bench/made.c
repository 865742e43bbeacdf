/*
 * made.c: keys and values that are made as they are needed, for stores that are larger than what support.c keeps in memory.
 * Called by the rows of cold reads and of many keys, outside of the time that is taken.
 */
#define _GNU_SOURCE
#include "bench.h"

struct scratch scratch_for(size_t batch, size_t value)
{
    return (struct scratch){memory(batch * KEY_BYTES), memory(batch * value), 0};
}

void drop_scratch(struct scratch *scratch)
{
    free(scratch->keys);
    free(scratch->values);
}

void make_puts(struct load *load, size_t first, size_t count)
{
    struct scratch *scratch = load->context;
    size_t words = load->value / 8;
    scratch->first = first;
    for (size_t i = 0; i < count; i++) {
        char *value = scratch->values + i * load->value;
        uint64_t begin = mix(first + i), end = mix(first + i + words - 1);
        make_key(scratch->keys[i], first + i);
        memcpy(value, value_of((first + i) % opt.keys), load->value);
        memcpy(value, &begin, 8);
        memcpy(value + 8 * (words - 1), &end, 8);
    }
}

int add_made_put(struct load *load, struct slot *slot, size_t i)
{
    struct scratch *scratch = load->context;
    size_t at = i - scratch->first;
    return kv_async_batch_put(slot->batch, scratch->keys[at], KEY_BYTES, scratch->values + at * load->value, load->value, NULL, NULL);
}
