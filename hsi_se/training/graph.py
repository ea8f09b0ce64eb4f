"""Replays training steps on a GPU as CUDA graphs.

A step of small patches is a few hundred short kernels, and starting each of them takes longer than its work. A graph
is captured once, without executing anything, and then started as a whole. It reads its input from fixed memory, and
writes the loss and the gradients to fixed memory. The optimizer's step is not part of it: the one-cycle schedule
changes β₁ of AdamW, which a captured kernel would keep.
"""

import gc
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_NUM_EAGER = 2  # steps of a size before it is captured; in the first ones, libraries allocate their workspaces

Outputs = tuple[Tensor | None, ...]
Capture = Callable[[Callable[[], Outputs]], tuple[Outputs, Callable[[], None]]]


@dataclass(frozen=True)
class _Graph:
    batch: Tensor
    outputs: Outputs  # loss and gradients
    replay: Callable[[], None]


class GraphedStep:
    """Computes the loss and gradients of batches, by a graph for each size of batch.

    The random numbers are the same as without graphs, in the same order: torch's generator of the device is part of
    the capture. A step that cannot be captured, for example because its operations depend on values, runs as it is.
    """

    def __init__(
        self,
        compute: Callable[[Tensor], Tensor],
        parameters: Sequence[nn.Parameter],
        *,
        on_note: Callable[[str], None],
        capture: Capture | None = None,
    ) -> None:
        """Args:
        compute: maps a batch, an int64 tensor `(m, n)` on the device, to its loss `()`.
        parameters: whose gradients are set.
        on_note: receives a sentence if the step cannot be captured.
        capture: records a function without executing it, and returns its outputs in fixed memory and a function that
            computes them; by default as a CUDA graph.
        """
        self._compute, self._parameters, self._on_note = compute, parameters, on_note
        self._capture = capture or _make_capture()
        self._graphs: dict[torch.Size, _Graph] = {}
        self._num_eager: Counter[torch.Size] = Counter()
        self._is_capturable = True

    def __call__(self, batch: Tensor) -> Tensor:
        """Sets the gradients of a batch's loss and returns the loss, in memory that the next step overwrites."""
        shape = batch.shape
        if self._is_capturable and shape not in self._graphs and self._num_eager[shape] >= _NUM_EAGER:
            self._record(batch)
        if shape in self._graphs:
            graph = self._graphs[shape]
            graph.batch.copy_(batch)
            graph.replay()
            outputs = graph.outputs
        else:
            self._num_eager[shape] += 1
            outputs = self._run(batch)
        loss, *gradients = outputs
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        assert loss is not None
        return loss

    def _record(self, batch: Tensor) -> None:
        fixed = batch.clone()
        try:
            self._graphs[batch.shape] = _Graph(fixed, *self._capture(lambda: self._run(fixed)))
        except RuntimeError as error:
            self._is_capturable = False
            cause = str(error.__context__ or error).splitlines()[0]  # the context's exit raises once more
            self._on_note(
                "this network's training step cannot be captured as a CUDA graph "
                f"({cause}), so its kernels are started one by one, which is slower"
            )

    def _run(self, batch: Tensor) -> Outputs:
        loss = self._compute(batch)
        gradients = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        return loss.detach(), *map(_lay_out, gradients, self._parameters)


def _lay_out(gradient: Tensor | None, parameter: nn.Parameter) -> Tensor | None:
    """Returns a gradient in the memory order of its parameter, as fused optimizers need it."""
    if gradient is None or gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


def can_capture(device: torch.device) -> bool:
    """Returns whether a device has graphs."""
    return device.type == "cuda"


def _make_capture() -> Capture:
    """Returns a function that captures CUDA graphs, which share the memory of everything but their outputs."""
    pool = torch.cuda.graph_pool_handle()

    def capture(run: Callable[[], Outputs]) -> tuple[Outputs, Callable[[], None]]:
        graph = torch.cuda.CUDAGraph()
        gc.collect()  # a graph of an earlier training that is freed during the capture would end it
        try:
            with torch.cuda.graph(graph, pool=pool):
                outputs = run()
        except RuntimeError:
            # The random generator waits for the end of a capture that will not come; another one brings it.
            with torch.cuda.graph(torch.cuda.CUDAGraph()):
                torch.zeros((), device="cuda")
            raise
        return outputs, graph.replay

    return capture
