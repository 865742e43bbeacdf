/* fences.c: tells ThreadSanitizer what std's Arc means by its fence. Whoever drops the last reference reads the count down to zero
 * with Release and then says `fence(Acquire)`, so that all that was done through the other references has happened before. The
 * sanitizer knows no fences (std has other code for it, but comes compiled without). `.ci/sanitize` links this into the library
 * under the name of the sanitizer's own function (ld --wrap). Must never order more than that fence does: only a count that
 * reaches zero, and only the thread that took it there. Counts of this crate's own say Acquire where they mean it. */
#include <stdint.h>

enum { RELEASE = 3 }; /* as in the compiler's interface to the sanitizer */

uint64_t __real___tsan_atomic64_fetch_sub(volatile uint64_t *count, uint64_t less, int order);
uint64_t __wrap___tsan_atomic64_fetch_sub(volatile uint64_t *count, uint64_t less, int order);
void __tsan_acquire(void *address);

uint64_t __wrap___tsan_atomic64_fetch_sub(volatile uint64_t *count, uint64_t less, int order) {
    uint64_t before = __real___tsan_atomic64_fetch_sub(count, less, order);
    if (order == RELEASE && before == less) __tsan_acquire((void *)count);
    return before;
}
