"""vLLM's paths.

Source: the decorators `@router.get`, `@router.post` … and calls of `add_api_route` below
`vllm/entrypoints` of release 0.32.0, read by script; `/v1/tokenize` and `/v1/detokenize` of 0.33.0.
What only comes with development mode, profiling, pooling models or LoRA is in it too.
"""

from isthmus.engines.paths import (
    administration,
    inference,
    information,
    models_list,
    union,
    websocket,
)

VLLM_PATHS = union(
    (
        inference(
            "POST",
            paths="""
            /v1/chat/completions /v1/chat/completions/batch /v1/chat/completions/render
            /v1/chat/completions/derender /v1/completions /v1/completions/render
            /v1/completions/derender /v1/responses /v1/responses/render
            /v1/responses/{id}/cancel /v1/messages /v1/messages/count_tokens /v1/messages/render
            /v1/systemone /v1/embeddings /v2/embed /pooling /classify /score /v1/score
            /rerank /v1/rerank /v2/rerank /v1/audio/transcriptions /v1/audio/translations
            /cohere/v2/chat /cohere/v2/chat/render /inference/v1/generate /invocations
            /generative_scoring /tokenize /v1/tokenize /detokenize /v1/detokenize
            """,
        ),
        inference("GET", paths="/v1/responses/{id}"),
        (websocket("/v1/realtime"), models_list("/v1/models")),
        information("GET", "POST", paths="/ping"),
        information(
            "GET",
            paths="/health /version /load /metrics /docs /redoc /openapi.json /tokenizer_info",
        ),
        administration(
            "POST",
            paths="""
            /v1/load_lora_adapter /v1/unload_lora_adapter /start_profile /stop_profile
            /sleep /wake_up /release_kv_cache_memory /collective_rpc
            /reset_prefix_cache /reset_mm_cache /reset_encoder_cache
            /pause /resume /abort_requests /inference/v1/abort_requests
            /init_weight_transfer_engine /shutdown_weight_transfer_engine /start_weight_update
            /start_draft_weight_update /update_weights /finish_weight_update
            /update_weight_version /weight_checker
            /scale_elastic_ep /is_scaling_elastic_ep /fault_tolerance/apply
            """,
        ),
        administration(
            "GET",
            paths="""
            /server_info /is_sleeping /is_paused /get_world_size /weight_info /kv_event_sources
            /fault_tolerance/status
            """,
        ),
    )
)
