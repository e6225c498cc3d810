#include "util/os_dmabuf.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/udmabuf.h>
#include <sys/ioctl.h>
#include <unistd.h>

bool pv_dmabuf_available(void)
{
    return access("/dev/udmabuf", R_OK | W_OK) == 0;
}

int pv_dmabuf_from_memfd(int memfd, uint64_t size, int *out)
{
    int device = open("/dev/udmabuf", O_RDWR | O_CLOEXEC);
    if (device < 0)
        return errno == EMFILE || errno == ENFILE ? -errno : -ENOTSUP;
    struct udmabuf_create create = {
        .memfd = (uint32_t)memfd,
        .flags = UDMABUF_FLAGS_CLOEXEC,
        .offset = 0,
        .size = size,
    };
    int fd = ioctl(device, UDMABUF_CREATE, &create);
    int error = errno;
    close(device);
    if (fd < 0)
        return -error;
    *out = fd;
    return 0;
}
