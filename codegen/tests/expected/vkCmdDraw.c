void pv_run_vkCmdDraw(struct pv_stream *s, bool wants_reply)
{
    struct pv_args_vkCmdDraw args = {0}, *a = &args;
    struct pv_decoder *d = &s->dec;
    a->wants_reply = wants_reply;
    a->commandBuffer_object = pv_decode_object(d, VK_OBJECT_TYPE_COMMAND_BUFFER, true);
    if (a->commandBuffer_object)
        a->commandBuffer = PV_HANDLE(VkCommandBuffer, pv_object_handle(a->commandBuffer_object));
    a->vertexCount = (uint32_t)pv_decode_u32(d);
    a->instanceCount = (uint32_t)pv_decode_u32(d);
    a->firstVertex = (uint32_t)pv_decode_u32(d);
    a->firstInstance = (uint32_t)pv_decode_u32(d);
    if (pv_decoder_failed(d))
        return;
    if (!d->dropped) {
        const struct pv_vk_device_table *vk = &a->commandBuffer_object->dev->vk;
        if (!vk->CmdDraw) {
            pv_stream_missing(s);
            return;
        }
        vk->CmdDraw(a->commandBuffer, a->vertexCount, a->instanceCount, a->firstVertex, a->firstInstance);
    }
    if (wants_reply) {
        struct pv_encoder *e = pv_stream_reply_begin(s);
        if (!e)
            return;
        pv_encode_u32(e, PV_COMMAND_vkCmdDraw);
        pv_stream_reply_end(s);
    }
}
