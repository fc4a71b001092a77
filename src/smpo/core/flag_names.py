"""What other tools call our keys: the flags of diffusers' scripts, TRL, kohya's sd-scripts and SimpleTuner.

Names are compared without leading dashes and with `_` for `-`. A test proves that every key exists, and that
docs/command-line.md lists the table.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Ours:
    """The key that stands for a flag of theirs, and what differs."""

    key: str
    note: str = ""


_LR, _STEPS = "training.optimizer.lr", "training.steps"
_MICRO = "pairs a forward pass on each process"
_TOTAL = "training.batch_size counts all pairs of a step: micro_batch_size x accumulation x processes"
_NOT_SCALED = "used as it is written, never scaled"

THEIRS: dict[str, Ours] = {
    # model and output
    "pretrained_model_name_or_path": Ours("model.source"),
    "pretrained_model_name": Ours("model.source"),
    "model_name_or_path": Ours("model.source"),
    "pretrained_vae_model_name_or_path": Ours("model.source", "the VAE is the pipeline's own"),
    "revision": Ours("model.revision"),
    "model_family": Ours("model.name", "sd or sdxl"),
    "unet_init": Ours("init_weights"),
    "output_dir": Ours("paths.workdir"),
    "output_name": Ours("name"),
    "logging_dir": Ours("paths.workdir", "logs lie in train/ inside it"),
    "cache_dir": Ours("paths.cache", "of latents; the hub's own cache is HF_HOME"),
    "vae_cache_dir": Ours("paths.cache"),
    # data
    "dataset_name": Ours("data.source"),
    "train_data_dir": Ours("data.source"),
    "instance_data_dir": Ours("data.source"),
    "dataset_split_name": Ours("data.split"),
    "split": Ours("data.split"),
    "max_train_samples": Ours("data.max_rows"),
    "resolution": Ours("cache.resolution"),
    "random_crop": Ours("cache.crop", "write cache.crop=random"),
    "center_crop": Ours("cache.crop", "write cache.crop=center"),
    "random_flip": Ours("training.flips", "none, shared or independent"),
    "flip_aug": Ours("training.flips", "none, shared or independent"),
    "no_hflip": Ours("training.flips", "write training.flips=none"),
    "vae_encode_batch_size": Ours("cache.batch_size"),
    "vae_batch_size": Ours("cache.batch_size"),
    "caption_dropout_rate": Ours("training.caption_dropout"),
    "caption_dropout_probability": Ours("training.caption_dropout"),
    "proportion_empty_prompts": Ours("training.caption_dropout"),
    # length and batches
    "max_train_steps": Ours(_STEPS),
    "max_steps": Ours(_STEPS),
    "num_train_epochs": Ours(_STEPS, "a run is counted in optimizer steps"),
    "max_train_epochs": Ours(_STEPS, "a run is counted in optimizer steps"),
    "train_batch_size": Ours("training.micro_batch_size", _MICRO),
    "per_device_train_batch_size": Ours("training.micro_batch_size", _MICRO),
    "gradient_accumulation_steps": Ours("training.batch_size", _TOTAL),
    "gradient_checkpointing_enable": Ours("training.gradient_checkpointing"),
    "dataloader_num_workers": Ours("training.workers"),
    "max_data_loader_n_workers": Ours("training.workers"),
    # optimizer
    "learning_rate": Ours(_LR, _NOT_SCALED),
    "lr": Ours(_LR, _NOT_SCALED),
    "unet_lr": Ours(_LR, _NOT_SCALED),
    "scale_lr": Ours(_LR, _NOT_SCALED),
    "lr_scheduler": Ours("training.optimizer.schedule", "constant, linear or cosine; the warm-up is apart"),
    "lr_scheduler_type": Ours("training.optimizer.schedule", "constant, linear or cosine; the warm-up is apart"),
    "lr_warmup_steps": Ours("training.optimizer.warmup_steps", "optimizer steps"),
    "warmup_steps": Ours("training.optimizer.warmup_steps", "optimizer steps"),
    "warmup_ratio": Ours("training.optimizer.warmup_steps", "optimizer steps, not a share"),
    "optimizer_type": Ours("training.optimizer.name", "adamw, adamw_8bit or adafactor"),
    "optim": Ours("training.optimizer.name", "adamw, adamw_8bit or adafactor"),
    "use_8bit_adam": Ours("training.optimizer.name", "write training.optimizer.name=adamw_8bit"),
    "use_adafactor": Ours("training.optimizer.name", "write training.optimizer.name=adafactor"),
    "adam_beta1": Ours("training.optimizer.betas", "both, as [0.9, 0.999]"),
    "adam_beta2": Ours("training.optimizer.betas", "both, as [0.9, 0.999]"),
    "adam_weight_decay": Ours("training.optimizer.weight_decay"),
    "weight_decay": Ours("training.optimizer.weight_decay"),
    "adam_epsilon": Ours("training.optimizer.eps"),
    "max_grad_norm": Ours("training.optimizer.max_grad_norm"),
    "use_ema": Ours("training.ema_decay", "write the decay, such as training.ema_decay=0.9999"),
    "ema_decay": Ours("training.ema_decay"),
    # preference
    "beta_dpo": Ours(
        "objective.beta", "twice that of diffusers' scripts, for our logit has a 1/2; DiffusionDPO's own is the same"
    ),
    "beta": Ours("objective.beta", "KL strength; a logit of ours has a 1/2"),
    "loss_type": Ours("objective.name"),
    "ref_model": Ours("reference_weights"),
    "choice_model": Ours("scorer.name"),
    "label_smoothing": Ours("objective.name", "write objective.name=cdpo"),
    "ref_model_mixup_alpha": Ours("training.reference_ema_decay"),
    # adapters
    "rank": Ours("training.lora.rank"),
    "lora_rank": Ours("training.lora.rank"),
    "lora_r": Ours("training.lora.rank"),
    "network_dim": Ours("training.lora.rank"),
    "lora_alpha": Ours("training.lora.alpha"),
    "network_alpha": Ours("training.lora.alpha"),
    "lora_dropout": Ours("training.lora.dropout"),
    "network_dropout": Ours("training.lora.dropout"),
    "lora_target_modules": Ours("training.lora.targets"),
    "use_dora": Ours("training.lora.dora"),
    # device and precision
    "mixed_precision": Ours("training.mixed_precision", "no, bf16 or fp16"),
    "bf16": Ours("training.mixed_precision", "write training.mixed_precision=bf16"),
    "fp16": Ours("training.mixed_precision", "write training.mixed_precision=fp16"),
    "gradient_checkpointing": Ours("training.gradient_checkpointing"),
    "torch_compile": Ours("training.compile"),
    "no_half_vae": Ours("cache.vae_dtype", "write cache.vae_dtype=float32"),
    "min_timestep": Ours("training.min_timestep"),
    "max_timestep": Ours("training.max_timestep"),
    # logs, checkpoints, samples
    "seed": Ours("seed"),
    "report_to": Ours("training.trackers", "a list, such as [tensorboard]"),
    "log_with": Ours("training.trackers", "a list, such as [tensorboard]"),
    "tracker_project_name": Ours("training.tracking.project"),
    "log_tracker_name": Ours("training.tracking.project"),
    "wandb_run_name": Ours("training.tracking.run"),
    "run_name": Ours("training.tracking.run"),
    "tracker_run_name": Ours("training.tracking.run"),
    "logging_steps": Ours("training.log_every"),
    "checkpointing_steps": Ours("training.checkpoint_every", "optimizer steps"),
    "save_steps": Ours("training.checkpoint_every", "optimizer steps"),
    "save_every_n_steps": Ours("training.checkpoint_every", "optimizer steps"),
    "checkpoints_total_limit": Ours("training.keep_checkpoints"),
    "save_total_limit": Ours("training.keep_checkpoints"),
    "resume_from_checkpoint": Ours("paths.workdir", "the same command again resumes; there is no flag for it"),
    "validation_prompt": Ours("training.samples.prompts", "a list"),
    "validation_prompts": Ours("training.samples.prompts", "a list"),
    "sample_prompts": Ours("training.samples.prompts", "a list"),
    "validation_steps": Ours("training.samples.every", "optimizer steps"),
    "validation_epochs": Ours("training.samples.every", "optimizer steps"),
    "sample_every_n_steps": Ours("training.samples.every", "optimizer steps"),
    "eval_steps": Ours("training.samples.every", "optimizer steps"),
    "num_inference_steps": Ours("generation.num_inference_steps"),
    "guidance_scale": Ours("generation.guidance_scale"),
    "num_validation_images": Ours("generation.images_per_prompt"),
}


def ours_for(name: str) -> Ours | None:
    """What stands for a flag or key of theirs, `--learning-rate` or `training.learning_rate`; None if it is unknown."""
    return THEIRS.get(name.lstrip("-").rpartition(".")[2].replace("-", "_").lower())


def flag_hint(name: str) -> str:
    """The hint " Did you mean 'training.optimizer.lr'? (note)" for a flag or key of another tool, or an empty text."""
    ours = ours_for(name)
    if ours is None or ours.key == name:
        return ""
    return f" Did you mean '{ours.key}'?" + (f" ({ours.note})" if ours.note else "")
