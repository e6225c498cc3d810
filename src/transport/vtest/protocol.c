#include "transport/vtest/protocol.h"

#include <stddef.h>

const char *pv_vtest_refused_name(uint32_t command)
{
    static const char *const virgl[] = {
        [PV_VTEST_GET_CAPS] = "GET_CAPS",
        [PV_VTEST_RESOURCE_CREATE] = "RESOURCE_CREATE",
        [PV_VTEST_TRANSFER_GET] = "TRANSFER_GET",
        [PV_VTEST_TRANSFER_PUT] = "TRANSFER_PUT",
        [PV_VTEST_SUBMIT_CMD] = "SUBMIT_CMD",
        [PV_VTEST_GET_CAPS2] = "GET_CAPS2",
        [PV_VTEST_RESOURCE_CREATE2] = "RESOURCE_CREATE2",
        [PV_VTEST_TRANSFER_GET2] = "TRANSFER_GET2",
        [PV_VTEST_TRANSFER_PUT2] = "TRANSFER_PUT2",
    };
    static const char *const drm_sync[] = {
        "DRM_SYNC_CREATE",
        "DRM_SYNC_DESTROY",
        "DRM_SYNC_HANDLE_TO_FD",
        "DRM_SYNC_FD_TO_HANDLE",
        "DRM_SYNC_IMPORT_SYNC_FILE",
        "DRM_SYNC_EXPORT_SYNC_FILE",
        "DRM_SYNC_WAIT",
        "DRM_SYNC_RESET",
        "DRM_SYNC_SIGNAL",
        "DRM_SYNC_TIMELINE_SIGNAL",
        "DRM_SYNC_TIMELINE_WAIT",
        "DRM_SYNC_QUERY",
        "DRM_SYNC_TRANSFER",
    };
    if (command >= PV_VTEST_DRM_SYNC_CREATE && command <= PV_VTEST_DRM_SYNC_TRANSFER)
        return drm_sync[command - PV_VTEST_DRM_SYNC_CREATE];
    if (command < sizeof(virgl) / sizeof(virgl[0]))
        return virgl[command];
    return NULL;
}
