#include "venus/capset.h"

#include "venus/protocol.h"

#include <string.h>

#define MASK_WORDS 32

void pv_capset_fill(uint8_t out[PV_CAPSET_VENUS_SIZE], bool use_guest_vram)
{
    uint32_t words[PV_CAPSET_VENUS_SIZE / 4] = {0};
    words[0] = 1; /* wire_format_version */
    words[1] = PV_PROTOCOL_VK_XML_VERSION;
    words[2] = 1; /* VK_EXT_command_serialization spec version */
    words[3] = PV_PROTOCOL_VERSION;
    words[4] = 1;  /* supports_blob_id_0 */
    words[5] |= 1; /* the mask is valid */
    for (uint32_t i = 0; i < pv_protocol_extension_count; i++) {
        uint32_t number = pv_protocol_extensions[i].number;
        if (number / 32 < MASK_WORDS)
            words[5 + number / 32] |= 1u << (number % 32);
    }
    words[37] = 1; /* allow_vk_wait_syncs */
    words[38] = 1; /* supports_multiple_timelines */
    words[39] = use_guest_vram;
    for (unsigned i = 0; i < PV_CAPSET_VENUS_SIZE / 4; i++) {
        for (unsigned byte = 0; byte < 4; byte++)
            out[4 * i + byte] = (uint8_t)(words[i] >> (8 * byte));
    }
}
