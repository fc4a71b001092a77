"""The training loop. `train(run)` is the one way in; running it again resumes.

Nothing random happens here: what a batch holds is a function of the run and its number (see `BatchSource`), and what
is computed of it is the learner's. The trainer knows neither.
"""

import contextlib
import math
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
from diffusers import ModelMixin
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from smpo.core.artefacts import Status
from smpo.core.errors import NonFiniteError, Stopped
from smpo.core.locks import sole_writer
from smpo.core.precision import float32_products
from smpo.core.processes import Process, this_process
from smpo.core.randomness import derive_seed
from smpo.core.signals import GO_ON, INTERRUPTED, PREEMPTED, remembered
from smpo.models.proof import prove_training
from smpo.training.checkpoint import POLICY, TrainState, load_checkpoint, save_checkpoint
from smpo.training.joining import join_processes
from smpo.training.learners.learner import Networks, Pool, StepOutput
from smpo.training.metrics import MeanTable, MetricsLog
from smpo.training.options import check_one_copy
from smpo.training.parallel import from_environment
from smpo.training.parallel.replicated import Replicated
from smpo.training.policy.finite import check_finite, non_finite
from smpo.training.policy.lora import AdaptersOff, add_adapters, restore_trained, trained_parameters
from smpo.training.policy.optimizers import ema_update_, learning_rate, set_learning_rate
from smpo.training.policy.speed import speed_up
from smpo.training.result import check_not_beyond, finish_run, open_run, save_samples
from smpo.training.run import Run, TrainReport
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
    parallel = from_environment(run.options)
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
        if accelerator.is_main_process:  # the others load the same networks, and the main process alone saves
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
    policy = trainer.trained_policy()
    if policy is not None:
        finish_run(run, policy)
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
    """The live objects of one process: networks, optimizer, progress."""

    def __init__(
        self, run: Run, accelerator: Accelerator, preempted: list[int], parallel: Replicated, state: TrainState | None
    ) -> None:
        self.run, self.accelerator, self.preempted, self.parallel = run, accelerator, preempted, parallel
        self.progress, self.leaving = Progress(), 0.0
        self.accumulation = run.options.accumulation(accelerator.num_processes)
        self.policy = self._prepared_policy()
        if state:
            restore_trained(self.policy, dict(state.tensors[POLICY]))
        parallel.place_policy(self.policy, run.options.optimizer)
        decay = run.options.ema_decay
        self.ema = EMAModel(trained_parameters(self.policy), decay=decay) if decay else None
        self.networks = Networks(parallel.policy, self.policy, self._reference(state), parallel.autocast)
        if state:
            self._resume(state)

    def loop(self, report: Report | None) -> None:
        """Optimizer steps until the last; saves, logs and generates samples on the way."""
        options, progress = self.run.options, self.progress
        log = MetricsLog(self.run.metrics_path, resume_step=progress.step) if self.accelerator.is_main_process else None
        batches = self._batches()
        while progress.step < options.steps:
            metrics = self._step(batches)
            if metrics is None:  # the step is tried again, from the same examples
                batches = self._batches()
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

    def save(self) -> None:
        """Write a checkpoint of the last whole step, for any number of processes however they lie."""
        averages = {"ema": self._shadows()} if self.ema else {}
        if self.run.options.reference_ema_decay is not None:
            averages["reference"] = self._moving_reference().state_dict()
        files, scalars = self.parallel.saved(self.policy, averages)
        self._check_weights({stem: files[stem] for stem in (POLICY, *averages) if stem in files})
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

    def trained_policy(self) -> ModelMixin | None:
        """The denoiser of the result on the main process, else None: the moving average where one is kept."""
        if self.ema:
            self.ema.copy_to(trained_parameters(self.policy))
        return self._whole_policy()

    def _resume(self, state: TrainState) -> None:
        """Put back all but the weights, which the networks were given before they were placed."""
        self.parallel.restore_optimizer(state.tensors["optimizer"], state.scalars["optimizer"])
        if self.ema:
            self.ema.shadow_params = list(self.parallel.shard_like(state.tensors["ema"], self._shadows()).values())
            self.ema.optimization_step = state.step
        if self.accelerator.scaler is not None and state.scalars.get("scaler"):
            self.accelerator.scaler.load_state_dict(state.scalars["scaler"])
        self.progress = Progress(state.step, state.scalars["skipped"], state.scalars["skipped_in_a_row"])

    def _check_weights(self, files: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Stop every process where a weight that one of them is about to save is not finite."""
        bad = [f"{stem} {name}" for stem, tensors in files.items() for name in non_finite(tensors)]
        bad = gather_object(bad) if self.accelerator.num_processes > 1 else bad
        check_finite(bad, step=self.progress.step, what="weights are", checkpoints=self.run.checkpoints)

    def _shadows(self) -> dict[str, Tensor]:
        """The moving average of each trained tensor, by its number."""
        assert self.ema is not None
        return {str(number): tensor for number, tensor in enumerate(self.ema.shadow_params)}

    def _step(self, batches: Iterator[Any]) -> dict[str, Any] | None:
        """One optimizer step over `accumulation` micro-batches; returns its metrics, None where fp16 skipped it."""
        options, started = self.run.options, time.perf_counter()
        # models with dropout draw from the global generator: make that a function of the step and rank, too
        torch.manual_seed(derive_seed(self.run.seed, "model", self.progress.step, self.accelerator.process_index))
        lr = learning_rate(self.progress.step, total=options.steps, options=options.optimizer)
        set_learning_rate(self.parallel.optimizer, lr)
        table = MeanTable()
        losses: list[tuple[str, Tensor]] = []
        prepared, pool = self._prepared(batches)
        for number, micro_batch in enumerate(prepared):
            output = self._backward(micro_batch, pool, last=number == self.accumulation - 1)
            table.add(output.sums)
            losses.extend(zip(micro_batch.batch.ids, output.loss.detach(), strict=True))
        sums = self._over_processes(table, torch.stack([loss for _, loss in losses]))
        norm = self.parallel.clip(options.optimizer.max_grad_norm)
        fetched = torch.cat([sums, norm.to(sums)[None]]).cpu()  # the one time that a step waits for its device
        means, (bad, self.leaving, norm) = fetched[:-3].view(-1, 2), fetched[-3:].tolist()
        skipping = not self._check_finite(int(bad), norm, losses)
        self.parallel.step()
        if skipping:
            return None
        self._move_averages()
        seconds = time.perf_counter() - started
        return {
            "step": self.progress.step + 1,
            "epoch": (self.progress.step + 1) * options.batch_size / self.run.source.examples_per_epoch,
            **self.run.learner.summarise(table.means(means)),
            "grad_norm": norm, "lr": lr, "examples_per_s": options.batch_size / seconds, "seconds": seconds,
            **({} if self.accelerator.scaler is None else {"skipped_steps": self.progress.skipped}),
        }

    def _over_processes(self, table: MeanTable, losses: Tensor) -> Tensor:
        """The sums of `table`, the number of losses that are not finite, and what signals came; over all processes.

        Whether to leave is agreed on like this: a signal may have reached one process only.
        """
        signalled = INTERRUPTION if signal.SIGINT in self.preempted else float(bool(self.preempted))
        sums = table.sums
        ends = torch.stack([(~torch.isfinite(losses)).sum().to(sums), sums.new_full((), signalled)])
        return self.accelerator.reduce(torch.cat([sums.flatten(), ends]), reduction="sum")

    def _move_averages(self) -> None:
        """The averages that follow the policy, after its step."""
        if self.ema:
            self.ema.step(trained_parameters(self.policy))
        decay = self.run.options.reference_ema_decay
        if decay is not None:
            ema_update_(self._moving_reference(), self.policy, decay=decay)

    def _prepared(self, batches: Iterator[Any]) -> tuple[Iterable[Any], Pool]:
        """The step's micro-batches, each prepared when its turn comes, and what pools their values.

        What goes over several micro-batches must be known before the loss of the first: then all are prepared, and
        evaluated by the policy without gradient, ahead.
        """
        coming = (self._next(batches) for _ in range(self.accumulation))
        if self.accumulation == 1 or not self.run.learner.needs_pool:
            return coming, self.accelerator.gather
        prepared = list(coming)
        with self.parallel.no_backward(gathered=self.policy):
            values = torch.cat([self.run.learner.pooled(one, self.networks) for one in prepared])
        pool = self.accelerator.gather(values)
        return prepared, lambda values: pool

    def _next(self, batches: Iterator[Any]) -> Any:
        """The next micro-batch; where a signal came before it, the end."""
        if self.preempted and self.accelerator.num_processes == 1:
            self._leave()
        networks = {None: None, "policy": self.policy, "reference": self.networks.reference}
        varying = networks[self.run.learner.varying_passes]
        batch = next(batches).to(self.accelerator.device)
        with self.parallel.no_backward(self.networks.reference, gathered=varying):
            return self.run.learner.prepare(batch, self.networks)

    def _backward(self, prepared: Any, pool: Pool, *, last: bool) -> StepOutput:
        """Accumulate the gradient of a micro-batch; returns its results."""
        with self.parallel.accumulating(last=last):
            output = self.run.learner.loss(prepared, self.networks, pool)
            self.parallel.backward(output.loss.mean() / self.accumulation)
        return output

    def _check_finite(self, bad_losses: int, norm: float, losses: list[tuple[str, Tensor]]) -> bool:
        """Stop every process before the optimizer step when a loss or the gradient is not finite.

        False under fp16 for an infinite gradient, as long as there were few in a row: the scaler is going to leave the
        optimizer's step out and to lower its scale. Nothing else may move then: the step is made again.

        Named are the examples of the losses that are not finite, or all of the step where all losses are.
        """
        if not bad_losses and math.isfinite(norm):
            self.progress.skipped_in_a_row = 0
            return True
        self.progress.skipped_in_a_row += 1
        scaled = self.accelerator.scaler is not None
        if scaled and not bad_losses and self.progress.skipped_in_a_row <= MAX_SKIPPED_STEPS:
            self.progress.skipped += 1
            return False
        ids = [name for name, loss in losses if not (bad_losses and torch.isfinite(loss))]
        ids = gather_object(ids) if self.accelerator.num_processes > 1 else ids
        what = f"{bad_losses} losses are" if bad_losses else "the gradient is"
        shown = ", ".join(ids[:8]) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
        raise NonFiniteError(
            f"{what} not finite at step {self.progress.step + 1} (examples {shown}); nothing was stepped. Lower "
            f"training.optimizer.lr or objective.beta, or look at these; checkpoints: {self.run.checkpoints}"
        )

    def _leave(self) -> None:
        """Save the last whole step and exit, asked to by a signal."""
        self.save()
        interrupted = signal.SIGINT in self.preempted or self.leaving >= INTERRUPTION
        raise Stopped(
            INTERRUPTED if interrupted else PREEMPTED, f"saved at step {self.progress.step}; {GO_ON}"
        )

    def _batches(self) -> Iterator[Any]:
        """This process's micro-batches from the present step on."""
        process = Process(self.accelerator.process_index, self.accelerator.num_processes)
        first, stop = (step * self.accumulation for step in (self.progress.step, self.run.options.steps))
        on_gpu = self.accelerator.device.type == "cuda"
        return self.run.source.micro_batches(first, stop, process=process, pin_memory=on_gpu)

    def _reference(self, state: TrainState | None) -> nn.Module | None:
        run = self.run
        if not run.learner.needs_reference_model:
            return None
        if run.options.lora:
            check_one_copy(run.init_weights, run.reference_weights)
            return AdaptersOff(self.policy)
        reference = run.family.load_denoiser(run.reference_weights or run.init_weights).requires_grad_(False).eval()
        if state and run.options.reference_ema_decay is not None:
            reference.load_state_dict(dict(state.tensors["reference"]))
        speed_up(reference, run.options)
        return self.parallel.place_reference(reference)

    def _moving_reference(self) -> nn.Module:
        assert self.networks.reference is not None  # checked with the recipe
        return self.networks.reference

    def _prepared_policy(self) -> ModelMixin:
        """The policy's start, with what the recipe adds to it."""
        policy, options = self.run.family.load_denoiser(self.run.init_weights), self.run.options
        if options.lora:
            add_adapters(policy, options.lora, seed=derive_seed(self.run.seed, "adapters"))
        speed_up(policy, options)
        return policy

    def _whole_policy(self) -> ModelMixin | None:
        """The policy in one piece on the main process, else None: itself, or an ordinary network with its weights."""
        main = self.accelerator.is_main_process
        if self.parallel.whole_policy:
            return self.policy if main else None
        weights = self.parallel.weights(self.policy)
        if not main:
            return None
        policy = self._prepared_policy()
        restore_trained(policy, weights)
        return policy.to(self.accelerator.device)

    def _samples(self) -> None:
        policy = self._whole_policy()
        if policy is not None:
            path = save_samples(self.run, policy, self.progress.step)
            track_samples(self.accelerator, path, step=self.progress.step)
        self.accelerator.wait_for_everyone()
