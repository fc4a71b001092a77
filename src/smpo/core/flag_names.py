"""What other tools call the keys of a recipe: flags of diffusers' scripts, TRL, kohya's sd-scripts, SimpleTuner.

Names are compared without leading dashes and with `_` for `-`. A test proves that every key exists, and that
docs/command-line.md lists the table.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class RecipeKey:
    """A dotted key of a recipe that does what a flag of another tool does, and what differs."""

    name: str
    note: str = ""


_LR, _STEPS = "training.optimizer.lr", "training.steps"
_MICRO = "pairs a forward pass on each process"
_TOTAL = "training.batch_size counts all pairs of a step: micro_batch_size x accumulation x processes"
_NOT_SCALED = "used as it is written, never scaled"

FOREIGN_FLAGS: dict[str, RecipeKey] = {
    # model and output
    "pretrained_model_name_or_path": RecipeKey("model.source"),
    "pretrained_model_name": RecipeKey("model.source"),
    "model_name_or_path": RecipeKey("model.source"),
    "pretrained_vae_model_name_or_path": RecipeKey("model.source", "the VAE is the pipeline's own"),
    "revision": RecipeKey("model.revision"),
    "model_family": RecipeKey("model.name", "sd or sdxl"),
    "unet_init": RecipeKey("init_weights"),
    "output_dir": RecipeKey("paths.workdir"),
    "output_name": RecipeKey("name"),
    "logging_dir": RecipeKey("paths.workdir", "logs lie in train/ inside it"),
    "cache_dir": RecipeKey("paths.cache", "of latents; the hub's own cache is HF_HOME"),
    "vae_cache_dir": RecipeKey("paths.cache"),
    # data
    "dataset_name": RecipeKey("data.source"),
    "train_data_dir": RecipeKey("data.source"),
    "instance_data_dir": RecipeKey("data.source"),
    "dataset_split_name": RecipeKey("data.split"),
    "split": RecipeKey("data.split"),
    "max_train_samples": RecipeKey("data.max_rows"),
    "resolution": RecipeKey("cache.resolution"),
    "random_crop": RecipeKey("cache.crop", "write cache.crop=random"),
    "center_crop": RecipeKey("cache.crop", "write cache.crop=center"),
    "random_flip": RecipeKey("training.flips", "none, shared or independent"),
    "flip_aug": RecipeKey("training.flips", "none, shared or independent"),
    "no_hflip": RecipeKey("training.flips", "write training.flips=none"),
    "vae_encode_batch_size": RecipeKey("cache.batch_size"),
    "vae_batch_size": RecipeKey("cache.batch_size"),
    "caption_dropout_rate": RecipeKey("training.caption_dropout"),
    "caption_dropout_probability": RecipeKey("training.caption_dropout"),
    "proportion_empty_prompts": RecipeKey("training.caption_dropout"),
    # length and batches
    "max_train_steps": RecipeKey(_STEPS),
    "max_steps": RecipeKey(_STEPS),
    "num_train_epochs": RecipeKey(_STEPS, "a run is counted in optimizer steps"),
    "max_train_epochs": RecipeKey(_STEPS, "a run is counted in optimizer steps"),
    "train_batch_size": RecipeKey("training.micro_batch_size", _MICRO),
    "per_device_train_batch_size": RecipeKey("training.micro_batch_size", _MICRO),
    "gradient_accumulation_steps": RecipeKey("training.batch_size", _TOTAL),
    "gradient_checkpointing_enable": RecipeKey("training.gradient_checkpointing"),
    "dataloader_num_workers": RecipeKey("training.workers"),
    "max_data_loader_n_workers": RecipeKey("training.workers"),
    # optimizer
    "learning_rate": RecipeKey(_LR, _NOT_SCALED),
    "lr": RecipeKey(_LR, _NOT_SCALED),
    "unet_lr": RecipeKey(_LR, _NOT_SCALED),
    "scale_lr": RecipeKey(_LR, _NOT_SCALED),
    "lr_scheduler": RecipeKey("training.optimizer.schedule", "constant, linear or cosine; the warm-up is apart"),
    "lr_scheduler_type": RecipeKey("training.optimizer.schedule", "constant, linear or cosine; the warm-up is apart"),
    "lr_warmup_steps": RecipeKey("training.optimizer.warmup_steps", "optimizer steps"),
    "warmup_steps": RecipeKey("training.optimizer.warmup_steps", "optimizer steps"),
    "warmup_ratio": RecipeKey("training.optimizer.warmup_steps", "optimizer steps, not a share"),
    "optimizer_type": RecipeKey("training.optimizer.name", "adamw, adamw_8bit or adafactor"),
    "optim": RecipeKey("training.optimizer.name", "adamw, adamw_8bit or adafactor"),
    "use_8bit_adam": RecipeKey("training.optimizer.name", "write training.optimizer.name=adamw_8bit"),
    "use_adafactor": RecipeKey("training.optimizer.name", "write training.optimizer.name=adafactor"),
    "adam_beta1": RecipeKey("training.optimizer.betas", "both, as [0.9, 0.999]"),
    "adam_beta2": RecipeKey("training.optimizer.betas", "both, as [0.9, 0.999]"),
    "adam_weight_decay": RecipeKey("training.optimizer.weight_decay"),
    "weight_decay": RecipeKey("training.optimizer.weight_decay"),
    "adam_epsilon": RecipeKey("training.optimizer.eps"),
    "max_grad_norm": RecipeKey("training.optimizer.max_grad_norm"),
    "use_ema": RecipeKey("training.ema_decay", "write the decay, such as training.ema_decay=0.9999"),
    "ema_decay": RecipeKey("training.ema_decay"),
    # preference
    "beta_dpo": RecipeKey(
        "objective.beta",
        "twice that of diffusers' scripts, for the logit here has a factor 1/2; DiffusionDPO's own is the same",
    ),
    "beta": RecipeKey("objective.beta", "KL strength; the logit here has a factor 1/2"),
    "loss_type": RecipeKey("objective.name"),
    "ref_model": RecipeKey("reference_weights"),
    "choice_model": RecipeKey("scorer.name"),
    "label_smoothing": RecipeKey("objective.name", "write objective.name=cdpo"),
    "ref_model_mixup_alpha": RecipeKey("training.reference_ema_decay"),
    # adapters
    "rank": RecipeKey("training.lora.rank"),
    "lora_rank": RecipeKey("training.lora.rank"),
    "lora_r": RecipeKey("training.lora.rank"),
    "network_dim": RecipeKey("training.lora.rank"),
    "lora_alpha": RecipeKey("training.lora.alpha"),
    "network_alpha": RecipeKey("training.lora.alpha"),
    "lora_dropout": RecipeKey("training.lora.dropout"),
    "network_dropout": RecipeKey("training.lora.dropout"),
    "lora_target_modules": RecipeKey("training.lora.targets"),
    "use_dora": RecipeKey("training.lora.dora"),
    # device and precision
    "mixed_precision": RecipeKey("training.mixed_precision", "no, bf16 or fp16"),
    "bf16": RecipeKey("training.mixed_precision", "write training.mixed_precision=bf16"),
    "fp16": RecipeKey("training.mixed_precision", "write training.mixed_precision=fp16"),
    "gradient_checkpointing": RecipeKey("training.gradient_checkpointing"),
    "torch_compile": RecipeKey("training.compile"),
    "no_half_vae": RecipeKey("cache.vae_dtype", "write cache.vae_dtype=float32"),
    "min_timestep": RecipeKey("training.min_timestep"),
    "max_timestep": RecipeKey("training.max_timestep"),
    # logs, checkpoints, samples
    "seed": RecipeKey("seed"),
    "report_to": RecipeKey("training.trackers", "a list, such as [tensorboard]"),
    "log_with": RecipeKey("training.trackers", "a list, such as [tensorboard]"),
    "tracker_project_name": RecipeKey("training.tracking.project"),
    "log_tracker_name": RecipeKey("training.tracking.project"),
    "wandb_run_name": RecipeKey("training.tracking.run"),
    "run_name": RecipeKey("training.tracking.run"),
    "tracker_run_name": RecipeKey("training.tracking.run"),
    "logging_steps": RecipeKey("training.log_every"),
    "checkpointing_steps": RecipeKey("training.checkpoint_every", "optimizer steps"),
    "save_steps": RecipeKey("training.checkpoint_every", "optimizer steps"),
    "save_every_n_steps": RecipeKey("training.checkpoint_every", "optimizer steps"),
    "checkpoints_total_limit": RecipeKey("training.keep_checkpoints"),
    "save_total_limit": RecipeKey("training.keep_checkpoints"),
    "resume_from_checkpoint": RecipeKey("paths.workdir", "the same command again resumes; there is no flag for it"),
    "validation_prompt": RecipeKey("training.samples.prompts", "a list"),
    "validation_prompts": RecipeKey("training.samples.prompts", "a list"),
    "sample_prompts": RecipeKey("training.samples.prompts", "a list"),
    "validation_steps": RecipeKey("training.samples.every", "optimizer steps"),
    "validation_epochs": RecipeKey("training.samples.every", "optimizer steps"),
    "sample_every_n_steps": RecipeKey("training.samples.every", "optimizer steps"),
    "eval_steps": RecipeKey("training.samples.every", "optimizer steps"),
    "num_inference_steps": RecipeKey("generation.num_inference_steps"),
    "guidance_scale": RecipeKey("generation.guidance_scale"),
    "num_validation_images": RecipeKey("generation.images_per_prompt"),
}


def recipe_key_for(flag: str) -> RecipeKey | None:
    """The key that replaces a flag or key of another tool, `--learning-rate` or `training.learning_rate`, or None."""
    return FOREIGN_FLAGS.get(flag.lstrip("-").rpartition(".")[2].replace("-", "_").lower())


def flag_hint(name: str) -> str:
    """The hint " Did you mean 'training.optimizer.lr'? (note)" for a flag or key of another tool, or an empty text."""
    key = recipe_key_for(name)
    if key is None or key.name == name:
        return ""
    return f" Did you mean '{key.name}'?" + (f" ({key.note})" if key.note else "")
