/* deny_uring.c: `deny_uring ERRNO PROGRAM ARGS...` runs the program with io_uring denied (1 EPERM as in a container, 38 ENOSYS as
 * on an old kernel). The driver puts it in front of every case under KVB_DENY_URING. */
#include "uring_filter.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv) {
    int error = argc > 1 ? atoi(argv[1]) : 0;
    if (argc < 3 || error <= 0) {
        fprintf(stderr, "usage: deny_uring ERRNO PROGRAM ARGS...\n");
        return 2;
    }
    if (refuse_uring(error) != 0) {
        fprintf(stderr, "deny_uring: the filter is refused: %s\n", strerror(errno));
        return 2;
    }
    /* Proof that it holds: without the filter these arguments give EINVAL or EFAULT. */
    if (syscall(425, 0, NULL) != -1 || errno != error) {
        fprintf(stderr, "deny_uring: io_uring_setup was not refused\n");
        return 2;
    }
    execvp(argv[2], argv + 2);
    fprintf(stderr, "deny_uring: %s: %s\n", argv[2], strerror(errno));
    return 2;
}
