"""Words of other tools: what timm's script, Lightning, fastai, Hugging Face and Ultralytics call our settings."""

# by the setting, or what is typed in its place; a word with a dot is one that others write so
FOREIGN_WORDS: dict[str, tuple[str, ...]] = {
    "strategy.epochs=VALUE": ("epochs", "num_epochs", "n_epochs", "max_epochs", "trainer.max_epochs",
                              "num_train_epochs", "training.epochs", "epoch"),
    "optimizer.lr=VALUE": ("lr", "learning_rate", "base_lr", "lr0", "base_learning_rate", "optim.lr", "model.lr",
                           "trainer.lr"),
    "optimizer.weight_decay=VALUE": ("weight_decay", "wd"),
    "optimizer=NAME": ("opt", "optim"),
    "data.batch_size=VALUE": ("batch_size", "bs", "batch", "train_batch_size", "per_device_train_batch_size",
                              "trainer.batch_size", "model.batch_size", "dataloader.batch_size"),
    "data.eval_batch_size=VALUE": ("per_device_eval_batch_size", "val_batch_size", "validation_batch_size"),
    "data.image_size=VALUE": ("imgsz", "img_size", "image_size", "input_size", "size", "resolution", "model.img_size"),
    "data.workers=VALUE": ("workers", "num_workers", "data.num_workers", "dataloader_num_workers"),
    "data=folder data.root=FOLDER": ("root", "data_dir", "data_path", "train_dir", "dataset", "data.dir", "data.folder",
                                     "data.data_dir", "data.train_dir", "dataset_path"),
    "data.splits.val=VALUE": ("val_size", "validation_split", "val_split", "valid_pct", "val_pct"),
    "data.splits.test=VALUE": ("test_size", "test_split"),
    "trainer.devices=VALUE": ("gpus", "devices", "ngpus", "num_gpus", "trainer.gpus", "trainer.num_gpus"),
    "trainer=cpu or trainer=gpu": ("device", "accelerator", "use_gpu", "trainer.device", "cuda"),
    "trainer.precision=VALUE": ("precision", "fp16", "bf16", "amp", "use_amp", "half", "trainer.amp"),
    "trainer.accumulate=VALUE": ("accumulate_grad_batches", "trainer.accumulate_grad_batches", "grad_accum_steps",
                                 "gradient_accumulation_steps"),
    "trainer.gradient_clip=VALUE": ("gradient_clip_val", "trainer.gradient_clip_val", "clip_grad", "max_grad_norm"),
    "trainer.limit_batches=VALUE": ("limit_train_batches", "trainer.limit_train_batches", "fast_dev_run",
                                    "trainer.fast_dev_run", "trainer.limit_val_batches"),
    "trainer.log_every=VALUE": ("log_every_n_steps", "trainer.log_every_n_steps", "logging_steps", "log_interval"),
    "recipe=auto recipe.budget=VALUE": ("max_time", "trainer.max_time", "time_limit", "trainer.time_limit", "budget"),
    "schedule=NAME": ("sched", "scheduler", "lr_scheduler", "lr_scheduler_type", "cos_lr"),
    "schedule.warmup=SHARE": ("warmup_epochs", "warmup", "warmup_steps", "warmup_ratio"),
    "loss.label_smoothing=VALUE": ("smoothing", "label_smoothing"),
    "augment.mixup=VALUE": ("mixup", "mixup_alpha"),
    "augment.cutmix=VALUE": ("cutmix", "cutmix_alpha"),
    "augment.horizontal_flip=VALUE": ("hflip", "fliplr", "horizontal_flip"),
    "augment.rand_augment=VALUE": ("aa", "auto_augment", "randaugment"),
    "head.dropout=VALUE": ("drop", "dropout", "model.dropout"),
    "model.drop_path_rate=VALUE": ("drop_path", "drop_path_rate", "stochastic_depth"),
    "model=timm model.name=NAME": ("arch", "architecture", "backbone", "model.backbone", "model_name", "model.arch",
                                   "model.model_name", "model.encoder"),
    "model.weights=VALUE": ("pretrained", "checkpoint", "ckpt", "ckpt_path", "weights", "model.pretrained",
                            "model.checkpoint", "model_name_or_path"),
    "strategy=frozen": ("freeze", "freeze_backbone", "freeze_epochs", "model.freeze", "linear_probe"),
    "callbacks=early_stopping callbacks.early_stopping.patience=VALUE": ("patience", "early_stopping",
                                                                        "early_stopping_patience"),
    "callbacks=ema": ("ema", "model_ema"),
    "imbalance=class_weights": ("class_weights", "class_weight", "balanced"),
    "runs=FOLDER": ("output_dir", "save_dir", "log_dir", "default_root_dir", "trainer.default_root_dir", "out_dir"),
    "name=NAME": ("experiment_name", "run_name", "exp_name"),
    "logger.wandb.project=NAME": ("project", "wandb_project", "wandb.project"),
    "monitor=METRIC": ("metric_for_best_model", "eval_metric", "checkpoint_metric"),
    "-m with it, such as: finetune -m seed=0,1,2": ("seeds",),
}  # fmt: skip
_BY_WORD = {word: typed for typed, words in FOREIGN_WORDS.items() for word in words}
# what has its key in some sources of data alone
_BY_SOURCE = {
    "root": "folder", "path": "csv", "label_column": "csv", "label_columns": "csv", "path_column": "csv",
    "split_column": "csv", "group_columns": "csv", "label_separator": "csv", "name": "hub", "revision": "hub",
    "frames": "sequences", "sequence_column": "sequence_table", "order_column": "sequence_table", "val_means": "folder",
}  # fmt: skip


def typed_for(key: str, value: str) -> str | None:
    """Return what is typed here for a word of other tools; None for a word that is not known.

    Args:
        key: As it was typed.
        value: Likewise.
    """
    group, _, name = key.rpartition(".")
    if group == "data" and name in _BY_SOURCE:
        return f"choose a source: data={_BY_SOURCE[name]} {key}={value}"
    found = _BY_WORD.get(key) or _BY_WORD.get(key.lower().replace("-", "_"))
    return None if found is None else f"type {found.replace('VALUE', value) if value else found}"
