"""The keys of DeepSpeed's configs, as of 0.18 and 0.19, and what this trainer makes of some of them. Only data."""

# table -> its keys; an unknown one is refused by DeepSpeed, but for the top's, which it ignores
KEYS = {
    "": """
        train_batch_size train_micro_batch_size_per_gpu gradient_accumulation_steps managed_gradient_accumulation
        steps_per_print dump_state disable_python_gc disable_allgather communication_data_type
        seq_parallel_communication_data_type prescale_gradients gradient_predivide_factor gradient_allreduce_op
        zero_optimization activation_checkpointing comms_logger tensorboard wandb csv_monitor comet gradient_clipping
        fp16 bf16 torch_autocast optimizer zero_allow_untested_optimizer zero_force_ds_cpu_optimizer scheduler
        flops_profiler wall_clock_breakdown memory_breakdown autotuning use_data_before_expert_parallelism
        hybrid_engine pipeline data_efficiency checkpoint data_types aio dataloader_drop_last log_level datastates_ckpt
        weight_quantization compile timers tensor_parallel expert_parallel vocabulary_size data_parallel_size
        sequence_parallel_size
    """,
    "zero_optimization": """
        stage contiguous_gradients reduce_scatter reduce_bucket_size use_multi_rank_bucket_allreduce
        allgather_partitions allgather_bucket_size overlap_comm compute_grad_norm load_from_fp32_weights
        elastic_checkpoint offload_param offload_optimizer zenflow sub_group_size cpu_offload cpu_offload_param
        cpu_offload_use_pin_memory stage3_prefetch_bucket_size stage3_param_persistence_threshold
        stage3_model_persistence_threshold stage3_max_live_parameters stage3_max_reuse_distance
        stage3_gather_16bit_weights_on_model_save stage3_gather_fp16_weights_on_model_save
        stage3_module_granularity_threshold stage3_use_all_reduce_for_fetch_params stage3_allgather_sequential
        ignore_unused_parameters legacy_stage1 round_robin_gradients parameter_alignment zero_hpz_partition_size
        zero_quantized_weights zero_quantized_nontrainable_weights zero_quantized_gradients memory_efficient_linear
        pipeline_loading_checkpoint override_module_apply log_trace_cache_warnings enable_sanity_checks
        save_muon_momentum_buffer_in_memory leaf_module
    """,
    "zero_optimization.offload_param": "device nvme_path buffer_count buffer_size max_in_cpu pin_memory",
    "zero_optimization.offload_optimizer": """
        device nvme_path buffer_count pin_memory pipeline_read pipeline_write fast_init ratio super_offload
        cpuadam_cores_perc
    """,
    "bf16": """
        enabled immediate_grad_update check_grad_overflow bf16_master_weights_and_grads bf16_optimizer_states
    """,
    "fp16": """
        enabled auto_cast loss_scale initial_scale_power loss_scale_window hysteresis consecutive_hysteresis
        min_loss_scale fp16_master_weights_and_grads
    """,
    "optimizer": "type params legacy_fusion",
    "scheduler": "type params",
    "scheduler.params": """
        warmup_min_lr warmup_max_lr warmup_num_steps warmup_type total_num_steps last_batch_iteration warmup_min_ratio
        cos_min_ratio
    """,
}
ADAM_KEYS = "lr betas eps weight_decay bias_correction torch_adam adam_w_mode"  # of optimizer.params

MOVED = {  # old key -> what to write now
    "bfloat16": "bf16",
    "zero_optimization.cpu_offload": '"offload_optimizer": {"device": "cpu"} in zero_optimization',
    "zero_optimization.cpu_offload_param": '"offload_param": {"device": "cpu"} in zero_optimization',
    "zero_optimization.cpu_offload_use_pin_memory": '"pin_memory" in offload_optimizer or offload_param',
    "optimizer.params.max_grad_norm": "gradient_clipping, at the top",
}
GONE = {  # key -> what to do without it; DeepSpeed 0.19 refuses a config that has it
    "amp": "use bf16",
    "elasticity": "a run here goes on at any number of ranks without it",
    "nebula": "checkpoints here are whole or absent without it",
    "sparse_attention": "",
    "sparse_gradients": "",
    "compression_training": "",
    "quantize_training": "",
    "eigenvalue": "",
    "progressive_layer_drop": "",
    "graph_harvesting": "",
    "curriculum_learning": "the shards say what is trained on, and in which lengths",
    "zero_optimization.mics_shard_size": "see zero_hpz_partition_size",
    "zero_optimization.mics_hierarchical_params_gather": "",
    "zero_optimization.zeropp_loco_param": "",
}
NOT_DONE = {  # key -> why
    "data_efficiency": "the shards say what is trained on, and in which lengths",
    "pipeline": "the model is not cut into stages here; use ZeRO-3",
    "tensor_parallel": "weights are not cut across GPUs in this way here; use ZeRO-3",
    "expert_parallel": "experts are not spread in this way here; use ZeRO-3",
    "sequence_parallel_size": "sequences are not cut across GPUs here",
    "hybrid_engine": "it is for reinforcement learning",
    "zero_optimization.elastic_checkpoint": "runs here go on at other numbers of ranks without it, and not with it",
    "checkpoint.load_universal": "the trainer sets it where it goes on at another number of ranks",
}
WITHOUT_EFFECT = {  # key -> what does it here
    "activation_checkpointing": "--gradient-checkpointing decides this",
    "autotuning": "`train plan` and the run itself choose what fits and is fastest",
    "zero_optimization.stage3_gather_fp16_weights_on_model_save": "the whole model is always written",
    "dataloader_drop_last": "no pack is dropped here",
    "tensorboard": "the run writes OUT/tensorboard itself, so DeepSpeed's own would come twice",
    "wandb": "--log-to wandb logs the run; DeepSpeed's own would come twice",
    "scheduler.params.warmup_min_lr": "the warm-up begins at 0",
    "scheduler.params.warmup_min_ratio": "the warm-up begins at 0",
    "scheduler.params.cos_min_ratio": "the cosine ends at 0",
}
