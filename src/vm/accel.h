/* How fast guest code can run here: by the processor's virtualization, or translated.
 *
 * Threads: any.
 */
#ifndef PV_VM_ACCEL_H
#define PV_VM_ACCEL_H

#include <stdbool.h>
#include <stddef.h>

enum pv_arch {
    PV_ARCH_X86_64,
    PV_ARCH_AARCH64,
};

enum pv_accel {
    PV_ACCEL_AUTO, /* the fastest that works */
    PV_ACCEL_KVM,
    PV_ACCEL_HVF,
    PV_ACCEL_TCG,
};

/* The architecture that this program was built for. */
enum pv_arch pv_arch_of_host(void);
/* "x86_64", "aarch64": as QEMU and `uname -m` have it. */
const char *pv_arch_name(enum pv_arch arch);
/* Those and Debian's names. 0 or -EINVAL. */
int pv_arch_parse(const char *name, enum pv_arch *out);

const char *pv_accel_name(enum pv_accel accel);
int pv_accel_parse(const char *name, enum pv_accel *out);

/* What there is to know about KVM. /dev/kvm alone says little: it exists in virtual machines whose
 * processor has no virtualization, and creating a machine there fails or, worse, seems to work. */
struct pv_kvm_facts {
    bool host_is_linux;
    bool arch_matches; /* the guest's is the host's */
    bool cpu_flag;     /* svm or vmx, where the architecture has such a flag */
    int open_error;    /* of /dev/kvm; 0: it opened */
    int machine_error; /* of making a machine with one processor */
};
void pv_kvm_probe(enum pv_arch guest, struct pv_kvm_facts *out);

/* If not, `why` says so in half a sentence. */
bool pv_kvm_usable(const struct pv_kvm_facts *facts, char *why, size_t why_size);

/* Resolve PV_ACCEL_AUTO, and check a wish. Returns 0; -ENOTSUP if a wish cannot be had. `why` is
 * the reason for that, or for TCG; else empty. */
int pv_accel_choose(enum pv_accel wish, enum pv_arch guest, enum pv_accel *out, char *why,
                    size_t why_size);

#endif
