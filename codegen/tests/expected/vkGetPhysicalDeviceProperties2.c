void pv_run_vkGetPhysicalDeviceProperties2(struct pv_stream *s, bool wants_reply)
{
    struct pv_args_vkGetPhysicalDeviceProperties2 args = {0}, *a = &args;
    struct pv_decoder *d = &s->dec;
    a->wants_reply = wants_reply;
    a->physicalDevice_object = pv_decode_object(d, VK_OBJECT_TYPE_PHYSICAL_DEVICE, true);
    if (a->physicalDevice_object)
        a->physicalDevice = PV_HANDLE(VkPhysicalDevice, pv_object_handle(a->physicalDevice_object));
    if (pv_decode_pointer(d, true)) {
        VkPhysicalDeviceProperties2 *p1 = pv_decode_room(d, 1, sizeof(*p1), 12);
        if (p1)
            pv_dec_room_VkPhysicalDeviceProperties2(d, &(*p1));
        a->pProperties = p1;
    }
    if (pv_decoder_failed(d))
        return;
    if (!d->dropped) {
        if (!a->physicalDevice_object->physical->instance->vk.GetPhysicalDeviceProperties2) {
            pv_stream_missing(s);
            return;
        }
        pv_layer_GetPhysicalDeviceProperties2(a->physicalDevice_object->physical, a->pProperties);
    }
    if (wants_reply) {
        struct pv_encoder *e = pv_stream_reply_begin(s);
        if (!e)
            return;
        pv_encode_u32(e, PV_COMMAND_vkGetPhysicalDeviceProperties2);
        pv_encode_u64(e, a->pProperties != NULL);
        if (a->pProperties)
            pv_enc_VkPhysicalDeviceProperties2(e, &(*a->pProperties));
        pv_stream_reply_end(s);
    }
}

static void pv_dec_room_body_VkPhysicalDeviceProperties2(struct pv_decoder *d, void *out)
{
    VkPhysicalDeviceProperties2 *v = out;
    (void)v;
    pv_dec_room_VkPhysicalDeviceProperties(d, &v->properties);
}

static void pv_enc_body_VkPhysicalDeviceProperties2(struct pv_encoder *e, const void *in)
{
    const VkPhysicalDeviceProperties2 *v = in;
    (void)v;
    pv_enc_VkPhysicalDeviceProperties(e, &v->properties);
}

void pv_enc_VkPhysicalDeviceProperties2(struct pv_encoder *e, const void *in)
{
    pv_encode_head(e, &chain_VkPhysicalDeviceProperties2, in);
    pv_enc_body_VkPhysicalDeviceProperties2(e, in);
}

void pv_enc_VkPhysicalDeviceSparseProperties(struct pv_encoder *e, const void *in)
{
    const VkPhysicalDeviceSparseProperties *v = in;
    (void)v;
    pv_encode_u32(e, (uint32_t)v->residencyStandard2DBlockShape);
    pv_encode_u32(e, (uint32_t)v->residencyStandard2DMultisampleBlockShape);
    pv_encode_u32(e, (uint32_t)v->residencyStandard3DBlockShape);
    pv_encode_u32(e, (uint32_t)v->residencyAlignedMipSize);
    pv_encode_u32(e, (uint32_t)v->residencyNonResidentStrict);
}
