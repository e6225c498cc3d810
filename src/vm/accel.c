#include "vm/accel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#ifdef __linux__
#include <linux/kvm.h>
#include <sys/ioctl.h>
#endif
#ifdef __APPLE__
#include <sys/sysctl.h>
#endif

static const char *const arch_names[] = {
    [PV_ARCH_X86_64] = "x86_64",
    [PV_ARCH_AARCH64] = "aarch64",
};
static const char *const accel_names[] = {
    [PV_ACCEL_AUTO] = "auto",
    [PV_ACCEL_KVM] = "kvm",
    [PV_ACCEL_HVF] = "hvf",
    [PV_ACCEL_TCG] = "tcg",
};

enum pv_arch pv_arch_of_host(void)
{
#ifdef __aarch64__
    return PV_ARCH_AARCH64;
#else
    return PV_ARCH_X86_64;
#endif
}

const char *pv_arch_name(enum pv_arch arch)
{
    return arch_names[arch];
}

int pv_arch_parse(const char *name, enum pv_arch *out)
{
    if (strcmp(name, "x86_64") == 0 || strcmp(name, "amd64") == 0)
        *out = PV_ARCH_X86_64;
    else if (strcmp(name, "aarch64") == 0 || strcmp(name, "arm64") == 0)
        *out = PV_ARCH_AARCH64;
    else
        return -EINVAL;
    return 0;
}

const char *pv_accel_name(enum pv_accel accel)
{
    return accel_names[accel];
}

int pv_accel_parse(const char *name, enum pv_accel *out)
{
    for (size_t i = 0; i < sizeof(accel_names) / sizeof(accel_names[0]); i++) {
        if (strcmp(name, accel_names[i]) == 0) {
            *out = (enum pv_accel)i;
            return 0;
        }
    }
    return -EINVAL;
}

#ifdef __linux__
/* The processor says that it can run guests. Only x86 has a flag for that. */
static bool cpu_has_virtualization(void)
{
#ifdef __x86_64__
    char line[8192];
    bool found = false;
    FILE *file = fopen("/proc/cpuinfo", "re");
    if (!file)
        return true; /* nothing known: the test of the machine decides */
    while (!found && fgets(line, sizeof(line), file)) {
        line[strcspn(line, "\n")] = ' ';
        found = strncmp(line, "flags", 5) == 0 && (strstr(line, " svm ") || strstr(line, " vmx "));
    }
    fclose(file);
    return found;
#else
    return true;
#endif
}

/* 0 if a machine with one processor can be made. */
static int try_machine(int kvm_fd)
{
    int vm_fd = ioctl(kvm_fd, KVM_CREATE_VM, 0ul);
    if (vm_fd < 0)
        return errno;
    int cpu_fd = ioctl(vm_fd, KVM_CREATE_VCPU, 0ul);
    int error = cpu_fd < 0 ? errno : 0;
    if (cpu_fd >= 0)
        close(cpu_fd);
    close(vm_fd);
    return error;
}

void pv_kvm_probe(enum pv_arch guest, struct pv_kvm_facts *out)
{
    *out = (struct pv_kvm_facts){.host_is_linux = true,
                                 .arch_matches = guest == pv_arch_of_host(),
                                 .cpu_flag = cpu_has_virtualization()};
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        out->open_error = errno;
        return;
    }
    if (out->arch_matches && out->cpu_flag)
        out->machine_error = try_machine(fd);
    close(fd);
}
#else
void pv_kvm_probe(enum pv_arch guest, struct pv_kvm_facts *out)
{
    *out = (struct pv_kvm_facts){.arch_matches = guest == pv_arch_of_host()};
}
#endif

bool pv_kvm_usable(const struct pv_kvm_facts *facts, char *why, size_t why_size)
{
    why[0] = '\0';
    if (!facts->host_is_linux)
        snprintf(why, why_size, "KVM is Linux only");
    else if (!facts->arch_matches)
        snprintf(why, why_size, "the guest's processor is not of this machine's kind");
    else if (!facts->cpu_flag)
        snprintf(why, why_size, "this processor shows no virtualization (neither svm nor vmx)");
    else if (facts->open_error == ENOENT)
        snprintf(why, why_size, "/dev/kvm does not exist (is the kvm module loaded?)");
    else if (facts->open_error == EACCES || facts->open_error == EPERM)
        snprintf(why, why_size, "you may not open /dev/kvm (add yourself to the group kvm)");
    else if (facts->open_error)
        snprintf(why, why_size, "/dev/kvm cannot be opened: %s", strerror(facts->open_error));
    else if (facts->machine_error)
        snprintf(why, why_size, "KVM cannot make a virtual machine: %s",
                 strerror(facts->machine_error));
    return !why[0];
}

#ifdef __APPLE__
static bool hvf_usable(enum pv_arch guest, char *why, size_t why_size)
{
    int supported = 0;
    size_t size = sizeof(supported);
    why[0] = '\0';
    if (guest != pv_arch_of_host())
        snprintf(why, why_size, "the guest's processor is not of this machine's kind");
    else if (sysctlbyname("kern.hv_support", &supported, &size, NULL, 0) < 0 || !supported)
        snprintf(why, why_size, "this machine has no Hypervisor framework");
    return !why[0];
}
#else
static bool hvf_usable(enum pv_arch guest, char *why, size_t why_size)
{
    snprintf(why, why_size, "HVF is macOS only");
    return false;
}
#endif

static bool is_usable(enum pv_accel accel, enum pv_arch guest, char *why, size_t why_size)
{
    struct pv_kvm_facts facts;
    why[0] = '\0';
    switch (accel) {
    case PV_ACCEL_KVM:
        pv_kvm_probe(guest, &facts);
        return pv_kvm_usable(&facts, why, why_size);
    case PV_ACCEL_HVF:
        return hvf_usable(guest, why, why_size);
    default:
        return true;
    }
}

int pv_accel_choose(enum pv_accel wish, enum pv_arch guest, enum pv_accel *out, char *why,
                    size_t why_size)
{
#ifdef __APPLE__
    const enum pv_accel native = PV_ACCEL_HVF;
#else
    const enum pv_accel native = PV_ACCEL_KVM;
#endif
    if (wish != PV_ACCEL_AUTO) {
        *out = wish;
        return is_usable(wish, guest, why, why_size) ? 0 : -ENOTSUP;
    }
    *out = is_usable(native, guest, why, why_size) ? native : PV_ACCEL_TCG;
    return 0;
}
