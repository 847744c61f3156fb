"""SGLang's paths.

Source: the decorators `@app.get`, `@app.api_route` … below `sglang/srt` of release 0.5.23, read by
script. Administration is what SGLang itself marks so (`AuthLevel.ADMIN_OPTIONAL`), what shows its
settings (`/server_info`: its API key too, sgl-project/sglang#30166), what only its own parts call
(encoders, gates), and sessions, which belong to one worker. The paths of Ollama and Vertex stand
with their default names.
"""

from isthmus.engines.paths import (
    administration,
    inference,
    information,
    models_list,
    union,
    websocket,
)

SGLANG_PATHS = union(
    (
        inference(
            "POST",
            paths="""
            /v1/chat/completions /v1/completions /v1/responses /v1/responses/{id}/cancel
            /v1/messages /v1/messages/count_tokens /v1/systemone /v1/decisions /v1/embeddings
            /v1/classify /v1/score /v1/audio/transcriptions /v1/tokenize /v1/detokenize
            /tokenize /detokenize /parse_function_call /separate_reasoning
            /invocations /vertex_generate /api/chat /api/generate
            """,
        ),
        inference("POST", "PUT", paths="/generate /encode /classify /v1/rerank"),
        inference("GET", paths="/v1/responses/{id}"),
        (websocket("/v1/realtime"), models_list("/v1/models")),
        information("GET", "HEAD", paths="/"),
        information(
            "GET",
            paths="""
            /v1/models/{model:path} /v1/loads /model_info /get_model_info /health /health_generate
            /ready /ping /metrics /docs /redoc /openapi.json /api/tags
            """,
        ),
        information("POST", paths="/api/show"),
        administration(
            "GET",
            "POST",
            paths="""
            /flush_cache /start_profile /stop_profile /set_trace_level /freeze_gc
            /start_expert_distribution_record /stop_expert_distribution_record
            /dump_expert_distribution_record /get_weights_by_name /release_memory_occupation
            /resume_memory_occupation /weights_checker /slow_down /configure_logging
            /open_session /close_session
            """,
        ),
        administration("POST", "PUT", paths="/set_internal_state"),
        administration("GET", "PUT", "DELETE", paths="/hicache/storage-backend"),
        administration("DELETE", paths="/unregister_encoder_url"),
        administration("PUT", paths="/register_transfer_engine_info"),
        administration(
            "POST",
            paths="""
            /load_lora_adapter /load_lora_adapter_from_tensors /unload_lora_adapter
            /add_external_corpus /remove_external_corpus /hicache/storage-backend/clear
            /update_weights_from_disk /update_weights_from_distributed
            /update_weights_from_tensor /update_weights_from_ipc /update_weight_version
            /init_weights_send_group_for_remote_instance /send_weights_to_remote_instance
            /init_weights_update_group /destroy_weights_update_group
            /begin_weight_update /end_weight_update /pd_role_switch /dumper/{method}
            /abort_request /pause_generation /continue_generation /scale_elastic_ep
            /gate/activate /send /scheduler_receive_meta_data /scheduler_receive_url
            /register_encoder_url
            """,
        ),
        administration(
            "GET",
            paths="""
            /server_info /get_server_info /list_external_corpora /list_encoder_urls
            /get_hicache_l3_cache_layout /is_scaling_elastic_ep
            /get_remote_instance_transfer_engine_info /remote_instance_transfer_engine_info
            /get_transfer_engine_info
            """,
        ),
    )
)
