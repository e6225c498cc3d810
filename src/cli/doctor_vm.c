#include "cli/doctor_vm.h"

#include "vm/accel.h"
#include "vm/image.h"
#include "vm/paths.h"
#include "vm/qemu.h"

#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>

void pv_doctor_vm_look(struct pv_doctor_vm *out)
{
    enum pv_arch arch = pv_arch_of_host();
    enum pv_accel accel;
    char engine[1024];
    struct pv_qemu qemu;
    *out = (struct pv_doctor_vm){0};

    pv_engine_path(arch, engine, sizeof(engine));
    out->qemu_found =
        pv_qemu_find(arch, engine, &qemu, out->qemu_problem, sizeof(out->qemu_problem)) == 0;
    if (out->qemu_found) {
        snprintf(out->qemu_path, sizeof(out->qemu_path), "%s", qemu.path);
        snprintf(out->qemu_version, sizeof(out->qemu_version), "%u.%u", qemu.major, qemu.minor);
        out->qemu_is_engine = qemu.is_engine;
        pv_qemu_finish(&qemu);
    }
    pv_accel_choose(PV_ACCEL_AUTO, arch, &accel, out->accel_why, sizeof(out->accel_why));
    snprintf(out->accel, sizeof(out->accel), "%s", pv_accel_name(accel));
    out->image_count = pv_image_list(&out->images);
    if (out->image_count < 0)
        out->image_count = 0;
}

void pv_doctor_vm_finish(struct pv_doctor_vm *vm)
{
    free(vm->images);
    vm->images = NULL;
    vm->image_count = 0;
}

void pv_doctor_vm_print(const struct pv_doctor_vm *vm)
{
    printf("\nVirtual machines\n");
    if (vm->qemu_found)
        printf("  QEMU        %s, %s%s\n", vm->qemu_version, vm->qemu_path,
               vm->qemu_is_engine ? " (PearVisor's own)" : "");
    else
        printf("  QEMU        MISSING: %s\n", vm->qemu_problem);
    printf("  speed       %s%s%s\n", vm->accel, vm->accel_why[0] ? ": " : "", vm->accel_why);
    for (int i = 0; i < vm->image_count; i++)
        printf("  image       %s: %s, %s, built %s\n", vm->images[i].name, vm->images[i].about,
               pv_arch_name(vm->images[i].arch), vm->images[i].built);
    if (vm->image_count == 0)
        printf("  image       none yet; 'pearvisor run debian-13' builds one\n");
}

static struct json_object *image_json(const struct pv_image *image)
{
    struct json_object *object = json_object_new_object();
    json_object_object_add(object, "name", json_object_new_string(image->name));
    json_object_object_add(object, "about", json_object_new_string(image->about));
    json_object_object_add(object, "arch", json_object_new_string(pv_arch_name(image->arch)));
    json_object_object_add(object, "built", json_object_new_string(image->built));
    return object;
}

struct json_object *pv_doctor_vm_json(const struct pv_doctor_vm *vm)
{
    struct json_object *root = json_object_new_object();
    struct json_object *images = json_object_new_array();
    json_object_object_add(root, "works", json_object_new_boolean(vm->qemu_found));
    json_object_object_add(root, "qemu",
                           vm->qemu_found ? json_object_new_string(vm->qemu_path) : NULL);
    json_object_object_add(root, "qemu_version",
                           vm->qemu_found ? json_object_new_string(vm->qemu_version) : NULL);
    json_object_object_add(root, "problem",
                           vm->qemu_found ? NULL : json_object_new_string(vm->qemu_problem));
    json_object_object_add(root, "acceleration", json_object_new_string(vm->accel));
    json_object_object_add(root, "acceleration_reason", json_object_new_string(vm->accel_why));
    for (int i = 0; i < vm->image_count; i++)
        json_object_array_add(images, image_json(&vm->images[i]));
    json_object_object_add(root, "images", images);
    return root;
}
