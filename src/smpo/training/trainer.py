"""The training loop. `train(run)` is the one way in; running it again resumes.

Nothing random happens here: examples, draws and noise are functions of (seed, position), see `order`.
"""

import contextlib
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import gather_object
from diffusers import UNet2DConditionModel
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.utils.data import DataLoader

from smpo.core.artefacts import Status
from smpo.core.errors import NonFiniteError, Stopped
from smpo.core.locks import sole_writer
from smpo.core.precision import float32_products, widest_float
from smpo.core.processes import this_process
from smpo.core.randomness import derive_seed
from smpo.core.records import TrainingBatch
from smpo.core.signals import GO_ON, INTERRUPTED, PREEMPTED, remembered
from smpo.maths.utility import reference_point
from smpo.models.proof import prove_training
from smpo.objectives import needs_reference_model
from smpo.training.batches import MicroBatches, Share, ignore_signals_in_worker
from smpo.training.checkpoint import TrainState, load_checkpoint, save_checkpoint
from smpo.training.joining import join_processes
from smpo.training.metrics import SUMS, MetricsLog, step_sums, summarise
from smpo.training.options import check_one_copy
from smpo.training.parallel import from_environment
from smpo.training.parallel.replicated import Replicated
from smpo.training.policy.finite import check_finite, non_finite
from smpo.training.policy.lora import AdaptersOff, add_adapters, restore_trained, trained_parameters
from smpo.training.policy.optimizers import ema_update_, learning_rate, set_learning_rate
from smpo.training.policy.speed import speed_up
from smpo.training.result import check_not_beyond, finish_run, open_run, save_samples
from smpo.training.run import Run, TrainReport
from smpo.training.step import Pool, Prepared, StepOutput, StepParts, prepare, rewards_ahead, training_step
from smpo.training.tracking import start_tracking, track_samples

INTERRUPTION = 1e6  # in a sum over processes, Ctrl-C in one of them; 1 is a scheduler's signal
NOTICE = "stopping: the step is finished and saved first; Ctrl-C again stops at once"
MAX_SKIPPED_STEPS = 20  # fp16 only: gradient overflows in a row while the loss scale adapts

Report = Callable[[dict[str, Any]], None]


def train(run: Run, *, report: Report | None = None) -> TrainReport:
    """Train `run`'s policy, resuming from its newest intact checkpoint, and write its model folder.

    Args:
        run: what to train, with what, where.
        report: called on the main process with each optimizer step's metrics.

    Raises:
        ConfigError: the launcher asks for what training does not do; a part of the model is damaged or does not fit.
        BusyError: another process trains in the run's folder.
        NonFiniteError: a loss or gradient is not finite; nothing was stepped, the last checkpoint stands.
        Stopped: code 75 after SIGTERM or SIGUSR1, 130 after Ctrl-C, with a checkpoint of the last whole step; a second
            Ctrl-C does not wait for the step.
    """
    parallel = from_environment(run.options, stored=run.stored is not None)
    accelerator = join_processes(run)
    with sole_writer(run.folder) if accelerator.is_main_process else contextlib.nullcontext():
        return _train(run, accelerator, parallel, report)


def _train(run: Run, accelerator: Accelerator, parallel: Callable[[Accelerator], Replicated], report: Report | None
           ) -> TrainReport:
    options = run.options
    with accelerator.main_process_first():
        status = open_run(run)
    if status is Status.DONE:
        return TrainReport(steps=options.steps, resumed_from=options.steps, seconds=0.0, skipped=True)
    with accelerator.main_process_first():
        if accelerator.is_main_process:  # the others load the same UNets, and the main process alone saves
            prove_training(run.family, (run.init_weights, run.reference_weights), max_timestep=options.max_timestep)
    started = time.perf_counter()
    notice = NOTICE if accelerator.is_main_process else ""
    with remembered(notice) as preempted, float32_products(tf32=options.tf32):
        state = load_checkpoint(run.checkpoints)
        resumed_from = state.step if state else 0
        check_not_beyond(run, resumed_from)
        start_tracking(accelerator, run, step=resumed_from)
        trainer = Trainer(run, accelerator, preempted, parallel(accelerator), state)
        del state  # as large as the run's weights and moments
        trainer.loop(report)
    accelerator.wait_for_everyone()
    result = trainer.trained_policy()
    if result is not None:
        finish_run(run, result)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    seconds = time.perf_counter() - started
    return TrainReport(steps=options.steps, resumed_from=resumed_from, seconds=seconds, skipped=False)


def forget_precision() -> None:
    """Let the next run of this process choose its mixed precision: accelerate keeps the first one otherwise."""
    AcceleratorState._reset_state(reset_partial_state=True)


@dataclass
class Progress:
    """Where a run stands: optimizer steps made; attempts that fp16's gradient scaler skipped, in all and in a row."""

    step: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0


class Trainer:
    """The live objects of one process: models, optimizer, progress."""

    def __init__(
        self, run: Run, accelerator: Accelerator, preempted: list[int], parallel: Replicated, state: TrainState | None
    ) -> None:
        self.run, self.accelerator, self.preempted, self.parallel = run, accelerator, preempted, parallel
        self.progress, self.leaving = Progress(), 0.0
        self.accumulation = run.options.accumulation(accelerator.num_processes)
        unet = run.family.load_denoiser(run.init_weights)
        self._prepare_policy(unet)
        if state:
            restore_trained(unet, dict(state.tensors["unet"]))
        parallel.place_policy(unet, run.options.optimizer)
        self.unet, decay = unet, run.options.ema_decay
        self.ema = EMAModel(trained_parameters(unet), decay=decay) if decay else None
        self.parts = StepParts(
            family=run.family, policy=parallel.policy, inverter=self.unet, reference=self._reference(state),
            noising=run.noising, objective=run.objective, autocast=parallel.autocast,
        )
        if state:
            self._resume(state)

    def loop(self, report: Report | None) -> None:
        """Optimizer steps until the last; saves, logs and draws samples on the way."""
        options, progress = self.run.options, self.progress
        log = MetricsLog(self.run.metrics_path, resume_step=progress.step) if self.accelerator.is_main_process else None
        batches = iter(self._loader())
        while progress.step < options.steps:
            metrics = self._step(batches)
            if metrics is None:  # the step is tried again, from the same examples
                batches = iter(self._loader())
                if self.leaving:
                    self._leave()
                continue
            progress.step += 1
            if log and progress.step % options.log_every == 0:
                log.append(metrics)
                self.accelerator.log({key: metrics[key] for key in metrics if key != "step"}, step=progress.step)
            if log and report:
                report(metrics)
            if self.leaving:
                self._leave()
            if progress.step % options.checkpoint_every == 0 or progress.step == options.steps:
                self.save()
            if options.samples.every and progress.step % options.samples.every == 0:
                self._samples()

    def _resume(self, state: TrainState) -> None:
        """Put back all but the weights, which the networks were given before they were placed."""
        self.parallel.restore_optimizer(state.tensors["optimizer"], state.scalars["optimizer"])
        if self.ema:
            self.ema.shadow_params = list(self.parallel.shard_like(state.tensors["ema"], self._shadows()).values())
            self.ema.optimization_step = state.step
        if self.accelerator.scaler is not None and state.scalars.get("scaler"):
            self.accelerator.scaler.load_state_dict(state.scalars["scaler"])
        self.progress = Progress(state.step, state.scalars["skipped"], state.scalars["skipped_in_a_row"])

    def save(self) -> None:
        """Write a checkpoint of the last whole step, for any number of processes however they lie."""
        averages = {"ema": self._shadows()} if self.ema else {}
        if self.run.options.reference_ema_decay is not None:
            averages["reference"] = self.parts.reference.state_dict()
        files, scalars = self.parallel.saved(self.unet, averages)
        self._check_weights({stem: files[stem] for stem in ("unet", *averages) if stem in files})
        scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler else None
        skipped = {"skipped": self.progress.skipped, "skipped_in_a_row": self.progress.skipped_in_a_row}
        rest = {"optimizer": scalars, "scaler": scaler, **skipped}
        save = partial(
            save_checkpoint, self.run.checkpoints, TrainState(self.progress.step, files, rest),
            keep=self.run.options.keep_checkpoints,
        )
        if self.parallel.shares_checkpoints:
            save(process=this_process(), gather=lambda one: gather_object([one]))
        elif self.accelerator.is_main_process:
            save()
        self.accelerator.wait_for_everyone()

    def _check_weights(self, files: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Stop every process where a weight that one of them is about to save is not finite."""
        bad = [f"{stem} {name}" for stem, tensors in files.items() for name in non_finite(tensors)]
        bad = gather_object(bad) if self.accelerator.num_processes > 1 else bad
        check_finite(bad, step=self.progress.step, what="weights are", checkpoints=self.run.checkpoints)

    def _shadows(self) -> dict[str, Tensor]:
        """The moving average of each trained tensor, by its number."""
        return {str(number): tensor for number, tensor in enumerate(self.ema.shadow_params)}

    def trained_policy(self) -> Any:
        """The UNet of the result on the main process, else None: the moving average where one is kept."""
        if self.ema:
            self.ema.copy_to(trained_parameters(self.unet))
        return self._whole_policy()

    def _step(self, batches: Iterator[TrainingBatch]) -> dict[str, Any] | None:
        """One optimizer step over `accumulation` micro-batches; returns its metrics, None where fp16 skipped it."""
        options, started = self.run.options, time.perf_counter()
        # models with dropout draw from the global generator: make that a function of the step and rank, too
        torch.manual_seed(derive_seed(self.run.seed, "model", self.progress.step, self.accelerator.process_index))
        lr = learning_rate(self.progress.step, total=options.steps, options=options.optimizer)
        set_learning_rate(self.parallel.optimizer, lr)
        device = self.accelerator.device
        sums = torch.zeros(len(SUMS) + 1, dtype=widest_float(device), device=device)
        losses: list[tuple[str, Tensor]] = []
        prepared, pool = self._prepared(batches)
        for number, micro_batch in enumerate(prepared):
            output = self._backward(micro_batch, pool, last=number == self.accumulation - 1)
            sums[:-1] += step_sums(output, micro_batch.batch.p_winner)
            losses.extend(zip(micro_batch.batch.pair_ids, output.loss.detach(), strict=True))
        sums[-1] = INTERRUPTION if signal.SIGINT in self.preempted else float(bool(self.preempted))
        sums = self.accelerator.reduce(sums, reduction="sum")
        norm = self.parallel.clip(options.optimizer.max_grad_norm)
        fetched = torch.cat([sums, norm.to(sums)[None]]).cpu()  # the one time that a step waits for its device
        sums, norm = fetched[:-1], fetched[-1]
        self.leaving = float(sums[-1])  # by agreement: a signal may have reached one process only
        skipping = not self._check_finite(sums, norm, losses)
        self.parallel.step()
        if skipping:
            return None
        self._move_averages()
        seconds = time.perf_counter() - started
        return {
            "step": self.progress.step + 1,
            "epoch": (self.progress.step + 1) * options.batch_size / len(self.run.pairs),
            **summarise(sums[:-1]),
            "grad_norm": float(norm), "lr": lr, "pairs_per_s": options.batch_size / seconds, "seconds": seconds,
            **({} if self.accelerator.scaler is None else {"skipped_steps": self.progress.skipped}),
        }

    def _move_averages(self) -> None:
        """The averages that ema_update_ the policy, after its step."""
        if self.ema:
            self.ema.step(trained_parameters(self.unet))
        decay = self.run.options.reference_ema_decay
        if decay is not None:
            ema_update_(self.parts.reference, self.unet, decay=decay)

    def _prepared(self, batches: Iterator[TrainingBatch]) -> tuple[Iterable[Prepared], Pool]:
        """The step's micro-batches, each prepared when its turn comes, and what pools their rewards.

        Where a reference point goes over several micro-batches it must be known before the loss of the first: then all
        are prepared and evaluated by the policy, without gradient, ahead.
        """
        coming = (self._next(batches) for _ in range(self.accumulation))
        if self.accumulation == 1 or not self.parts.objective.needs_reference_point:
            return coming, self._reference_point
        prepared = list(coming)
        with self.parallel.no_backward(gathered=self.unet):
            rewards = torch.cat([rewards_ahead(one, self.parts) for one in prepared])
        point = self._reference_point(rewards)
        return prepared, lambda rewards: point

    def _next(self, batches: Iterator[TrainingBatch]) -> Prepared:
        """The next micro-batch; where a signal came before it, the end."""
        if self.preempted and self.accelerator.num_processes == 1:
            self._leave()
        networks = {"policy": self.unet, "reference": self.parts.reference}
        inverter = None if self.run.stored is not None else networks.get(self.run.noising.network)
        batch = next(batches).to(self.accelerator.device)
        with self.parallel.no_backward(self.parts.reference, gathered=inverter):
            return prepare(batch, self.parts)

    def _reference_point(self, rewards: Tensor) -> Tensor:
        """The reference point over these rewards of every process."""
        return reference_point(self.accelerator.gather(rewards))

    def _backward(self, prepared: Prepared, pool: Pool, *, last: bool) -> StepOutput:
        """Accumulate the gradient of a micro-batch; returns its per-pair results."""
        with self.parallel.accumulating(last=last):
            output = training_step(prepared, self.parts, pool)
            self.parallel.backward(output.loss.mean() / self.accumulation)
        return output

    def _check_finite(self, sums: Tensor, norm: Tensor, losses: list[tuple[str, Tensor]]) -> bool:
        """Stop every process before the optimizer step when a loss or the gradient is not finite.

        False under fp16 for an infinite gradient, as long as there were few in a row: the scaler is going to leave the
        optimizer's step out and to lower its scale. Nothing else may move then: the step is made again.

        Named are the pairs of the losses that are not finite, or all pairs of the step where all losses are.
        """
        bad_losses = int(sums[SUMS.index("bad")])
        if not bad_losses and torch.isfinite(norm):
            self.progress.skipped_in_a_row = 0
            return True
        self.progress.skipped_in_a_row += 1
        scaled = self.accelerator.scaler is not None
        if scaled and not bad_losses and self.progress.skipped_in_a_row <= MAX_SKIPPED_STEPS:
            self.progress.skipped += 1
            return False
        pair_ids = [pair_id for pair_id, loss in losses if not (bad_losses and torch.isfinite(loss))]
        pair_ids = gather_object(pair_ids) if self.accelerator.num_processes > 1 else pair_ids
        what = f"{bad_losses} losses are" if bad_losses else "the gradient is"
        shown = ", ".join(pair_ids[:8]) + (f" and {len(pair_ids) - 8} more" if len(pair_ids) > 8 else "")
        raise NonFiniteError(
            f"{what} not finite at step {self.progress.step + 1} (pairs {shown}); nothing was stepped. Lower "
            f"training.optimizer.lr or objective.beta, or look at these pairs; checkpoints: {self.run.checkpoints}"
        )

    def _leave(self) -> None:
        """Save the last whole step and exit, asked to by a signal."""
        self.save()
        interrupted = signal.SIGINT in self.preempted or self.leaving >= INTERRUPTION
        raise Stopped(
            INTERRUPTED if interrupted else PREEMPTED, f"saved at step {self.progress.step}; {GO_ON}"
        )

    def _loader(self) -> DataLoader:
        """This process's micro-batches from the present step on; nothing is read to be skipped."""
        options, share = self.run.options, Share(self.accelerator.process_index, self.accelerator.num_processes)
        dataset = MicroBatches(
            self.run.pairs, self.run.cache, self.run.family, options=options, order=self.run.order, share=share
        )
        dataset.stored = self.run.stored
        remaining = range(self.progress.step * self.accumulation, options.steps * self.accumulation)
        return DataLoader(
            dataset, batch_size=None, sampler=remaining, num_workers=options.workers,
            worker_init_fn=ignore_signals_in_worker, pin_memory=self.accelerator.device.type == "cuda",
        )

    def _reference(self, state: TrainState | None) -> torch.nn.Module | None:
        if self.run.stored is not None or not needs_reference_model(self.run.objective, self.run.noising):
            return None
        if self.run.options.lora:
            check_one_copy(self.run.init_weights, self.run.reference_weights)
            return AdaptersOff(self.unet)
        weights = self.run.reference_weights or self.run.init_weights
        reference = self.run.family.load_denoiser(weights).requires_grad_(False).eval()
        if state and self.run.options.reference_ema_decay is not None:
            reference.load_state_dict(dict(state.tensors["reference"]))
        speed_up(reference, self.run.options)
        return self.parallel.place_reference(reference)

    def _prepare_policy(self, unet: UNet2DConditionModel) -> None:
        """Add to `unet`, the policy's start, what the recipe asks for."""
        options = self.run.options
        if options.lora:
            add_adapters(unet, options.lora, seed=derive_seed(self.run.seed, "adapters"))
        speed_up(unet, options)

    def _whole_policy(self) -> UNet2DConditionModel | None:
        """The policy in one piece on the main process, else None: itself, or an ordinary UNet with its weights."""
        main = self.accelerator.is_main_process
        if self.parallel.whole_policy:
            return self.unet if main else None
        weights = self.parallel.weights(self.unet)
        if not main:
            return None
        unet = self.run.family.load_denoiser(self.run.init_weights)
        self._prepare_policy(unet)
        restore_trained(unet, weights)
        return unet.to(self.accelerator.device)

    def _samples(self) -> None:
        unet = self._whole_policy()
        if unet is not None:
            path = save_samples(self.run, unet, self.progress.step)
            track_samples(self.accelerator, path, step=self.progress.step)
        self.accelerator.wait_for_everyone()
