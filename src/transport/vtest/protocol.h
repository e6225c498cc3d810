/* Numbers of the vtest protocol that Mesa's Venus driver speaks over a Unix socket.
 *
 *   request, reply    u32 length | u32 command | payload       little-endian
 *
 * length counts words of payload, except in CREATE_RENDERER, where it counts bytes. A reply that
 * carries an fd is followed by one message of exactly one byte (0) with the fd attached: the client
 * reads it with a one-byte buffer, and an fd on any other byte is lost.
 *
 * Spec: vtest_protocol.h of virglrenderer and Mesa; the commands from 25 on are of version 4.
 */
#ifndef PV_TRANSPORT_VTEST_PROTOCOL_H
#define PV_TRANSPORT_VTEST_PROTOCOL_H

#include <stdint.h>

#define PV_VTEST_VERSION_MAX 4 /* below 3 there is no Venus */

enum pv_vtest_command {
    PV_VTEST_GET_CAPS = 1,
    PV_VTEST_RESOURCE_CREATE = 2,
    PV_VTEST_RESOURCE_UNREF = 3,
    PV_VTEST_TRANSFER_GET = 4,
    PV_VTEST_TRANSFER_PUT = 5,
    PV_VTEST_SUBMIT_CMD = 6,
    PV_VTEST_RESOURCE_BUSY_WAIT = 7,
    PV_VTEST_CREATE_RENDERER = 8,
    PV_VTEST_GET_CAPS2 = 9,
    PV_VTEST_PING_PROTOCOL_VERSION = 10,
    PV_VTEST_PROTOCOL_VERSION = 11,
    PV_VTEST_RESOURCE_CREATE2 = 12,
    PV_VTEST_TRANSFER_GET2 = 13,
    PV_VTEST_TRANSFER_PUT2 = 14,
    PV_VTEST_GET_PARAM = 15,
    PV_VTEST_GET_CAPSET = 16,
    PV_VTEST_CONTEXT_INIT = 17,
    PV_VTEST_RESOURCE_CREATE_BLOB = 18,
    PV_VTEST_SYNC_CREATE = 19,
    PV_VTEST_SYNC_UNREF = 20,
    PV_VTEST_SYNC_READ = 21,
    PV_VTEST_SYNC_WRITE = 22,
    PV_VTEST_SYNC_WAIT = 23,
    PV_VTEST_SUBMIT_CMD2 = 24,
    PV_VTEST_DRM_SYNC_CREATE = 25,
    PV_VTEST_DRM_SYNC_TRANSFER = 37,
    PV_VTEST_RESOURCE_EXPORT_FD = 38,
};

#define PV_VTEST_PARAM_MAX_TIMELINE_COUNT 1u

#define PV_VTEST_BLOB_TYPE_HOST3D 2u

#define PV_VTEST_SYNC_WAIT_ANY 1u

#define PV_VTEST_SUBMIT_RING_IDX     1u
#define PV_VTEST_SUBMIT_IN_FENCE_FD  2u
#define PV_VTEST_SUBMIT_OUT_FENCE_FD 4u

/* The name of a command that exists and that we refuse, because no Venus client sends it: those of
 * virgl, and the DRM sync objects of native contexts. NULL for all others. */
const char *pv_vtest_refused_name(uint32_t command);

#endif
