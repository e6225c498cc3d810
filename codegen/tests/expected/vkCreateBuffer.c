void pv_run_vkCreateBuffer(struct pv_stream *s, bool wants_reply)
{
    struct pv_args_vkCreateBuffer args = {0}, *a = &args;
    struct pv_decoder *d = &s->dec;
    a->wants_reply = wants_reply;
    a->device_object = pv_decode_object(d, VK_OBJECT_TYPE_DEVICE, true);
    if (a->device_object)
        a->device = PV_HANDLE(VkDevice, pv_object_handle(a->device_object));
    if (pv_decode_pointer(d, true)) {
        VkBufferCreateInfo *p1 = pv_decode_room(d, 1, sizeof(*p1), 44);
        if (p1)
            pv_dec_VkBufferCreateInfo(d, &(*p1));
        a->pCreateInfo = p1;
    }
    pv_decode_null(d);
    {
        uint64_t n = pv_decode_pointer(d, true) ? 1 : 0;
        a->pBuffer = pv_decode_room(d, n, sizeof(*a->pBuffer), 8);
        a->pBuffer_ids = pv_decode_room(d, n, sizeof(*a->pBuffer_ids), 8);
        if (a->pBuffer_ids)
            pv_decode_bytes(d, a->pBuffer_ids, (size_t)n * sizeof(*a->pBuffer_ids));
    }
    if (pv_decoder_failed(d))
        return;
    uint32_t count = a->pBuffer ? 1 : 0;
    struct pv_object **objects = pv_stream_reserve(s, VK_OBJECT_TYPE_BUFFER, a->device_object, count, a->pBuffer_ids);
    if (pv_decoder_failed(d))
        return;
    if (!d->dropped) {
        a->ret = pv_layer_CreateBuffer(a->device_object->dev, a->pCreateInfo, a->pBuffer);
    } else {
        a->ret = VK_ERROR_OUT_OF_DEVICE_MEMORY;
    }
    pv_stream_publish(s, objects, count, a->ret, (const uint64_t *)(const void *)a->pBuffer, a->pBuffer_ids, wants_reply);
    if (wants_reply) {
        struct pv_encoder *e = pv_stream_reply_begin(s);
        if (!e)
            return;
        pv_encode_u32(e, PV_COMMAND_vkCreateBuffer);
        pv_encode_u32(e, (uint32_t)a->ret);
        pv_encode_u64(e, 1);
        pv_encode_u64(e, a->pBuffer_ids ? a->pBuffer_ids[0] : 0);
        pv_stream_reply_end(s);
    }
}

static void pv_dec_body_VkBufferCreateInfo(struct pv_decoder *d, void *out)
{
    VkBufferCreateInfo *v = out;
    (void)v;
    v->flags = (VkBufferCreateFlags)pv_decode_u32(d);
    v->size = (VkDeviceSize)pv_decode_u64(d);
    v->usage = (VkBufferUsageFlags)pv_decode_u32(d);
    v->sharingMode = (VkSharingMode)pv_decode_u32(d);
    v->queueFamilyIndexCount = (uint32_t)pv_decode_u32(d);
    {
        uint64_t n1 = pv_decode_count(d, (uint64_t)(v->queueFamilyIndexCount), true);
        uint32_t *p2 = pv_decode_room(d, n1, sizeof(*p2), 4);
        if (p2) {
            pv_decode_bytes(d, p2, (size_t)n1 * sizeof(*p2));
        }
        v->pQueueFamilyIndices = (void *)p2;
    }
}
