"""AdamW over a policy's trainable parameters, with moments that can be kept on the site."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from zk0.params import TrainingParams
from zk0.policy.trainable import TensorMismatch, Tensors, check_alike, check_finite

_BETAS = (0.9, 0.95)  # SmolVLA's
_MOMENTS = ("exp_avg", "exp_avg_sq")
_FUSED = ("cpu", "cuda", "mps")


class LocalOptimizer:
    """AdamW (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019), one pass a step.

    Args:
        policy: What trains; every parameter on one device.
        settings: Rate, weight decay and clipping.
        moments: Of an earlier round, as :meth:`moments` gave them; copied. None starts anew.

    Raises:
        TensorMismatch: The moments do not fit the policy or are not finite; names the tensor.
    """

    def __init__(
        self, policy: nn.Module, settings: TrainingParams, moments: Mapping[str, Tensor] | None = None
    ) -> None:
        self._named = {name: p for name, p in policy.named_parameters() if p.requires_grad}
        self.parameters = list(self._named.values())
        self._clip = settings.grad_clip
        self._fused = all(p.device.type in _FUSED for p in self.parameters)
        self._adamw = torch.optim.AdamW(
            self.parameters,
            lr=settings.learning_rate,
            betas=_BETAS,
            weight_decay=settings.weight_decay,
            fused=self._fused,
        )
        if moments is not None:
            self._take(moments)

    def step(self, rate: float) -> None:
        """Clip the gradients, move the parameters at this learning rate, and drop the gradients."""
        for group in self._adamw.param_groups:
            group["lr"] = rate
        if self._clip:
            self._clip_gradients()
        self._adamw.step()
        self._adamw.zero_grad(set_to_none=True)

    def _clip_gradients(self) -> None:
        norm = _total_norm([p.grad for p in self.parameters if p.grad is not None])
        if self._fused:  # as GradScaler does it: the step's own pass over the gradients divides them by this
            self._adamw.grad_scale = (norm / self._clip).clamp_min(1.0)  # type: ignore[attr-defined]
        else:
            nn.utils.clip_grads_with_norm_(self.parameters, self._clip, norm)

    def moments(self) -> Tensors:
        """Adam's moments and step count, on the CPU, named ``exp_avg/PARAMETER``, ``exp_avg_sq/PARAMETER``, ``step``.

        They are the optimiser's own tensors where those are on the CPU already: it must not step again.
        """
        kept: Tensors = {}
        for name, parameter in self._named.items():
            for moment in _MOMENTS:
                state = self._adamw.state.get(parameter)
                value = state[moment] if state else torch.zeros_like(parameter)  # no gradient ever reached it
                kept[f"{moment}/{name}"] = value.detach().cpu()
        steps = [float(state["step"]) for state in self._adamw.state.values()]
        return kept | {"step": torch.tensor(max(steps, default=0.0))}

    def _take(self, moments: Mapping[str, Tensor]) -> None:
        expected = {f"{moment}/{name}": p.detach() for name, p in self._named.items() for moment in _MOMENTS}
        check_alike(moments, expected | {"step": torch.zeros(())})
        check_finite(moments)
        for key in ("step", *(f"exp_avg_sq/{name}" for name in self._named)):
            if negative := int((moments[key] < 0).sum()):
                raise TensorMismatch(f"tensor '{key}' has {negative} negative values, where there can be none")
        for name, parameter in self._named.items():
            self._adamw.state[parameter] = {
                "step": moments["step"].to(parameter.device, torch.float32, copy=True),
                **{moment: moments[f"{moment}/{name}"].to(parameter.device, copy=True) for moment in _MOMENTS},
            }


def _total_norm(gradients: list[Tensor]) -> Tensor:
    """The norm of all of them together; on a CPU by dot products, which take half as long as its norms."""
    if any(g.device.type != "cpu" or g.dtype != torch.float32 for g in gradients):
        return nn.utils.get_total_norm(gradients)
    return torch.stack([torch.dot(flat, flat) for flat in (g.flatten() for g in gradients)]).sum().sqrt()


class Proximal:
    """FedProx's pull towards the global model, added to the gradients in place.

    The term mu / 2 |w - w_global|^2 (Li et al., "Federated Optimization in Heterogeneous Networks",
    MLSys 2020, equation 2) has the gradient mu (w - w_global); its value is not needed.

    Args:
        policy: What trains.
        reference: The global model's trainable tensors.
        mu: The term's weight.
    """

    def __init__(self, policy: nn.Module, reference: Mapping[str, Tensor], mu: float) -> None:
        self._mu = mu
        self._pairs = [(p, reference[n].to(p.device)) for n, p in policy.named_parameters() if p.requires_grad]
        largest = max((p for p, _ in self._pairs), key=Tensor.numel)
        self._scratch = torch.empty_like(largest, requires_grad=False).flatten()

    @torch.no_grad()
    def add_gradient(self) -> None:
        """Add mu (w - w_global) to every parameter's gradient."""
        for parameter, reference in self._pairs:
            distance = self._scratch[: parameter.numel()].view_as(parameter)
            torch.sub(parameter, reference, out=distance)
            if parameter.grad is None:
                parameter.grad = distance * self._mu
            else:
                parameter.grad.add_(distance, alpha=self._mu)


def learning_rate(step: int, params: TrainingParams, decay_steps: int) -> float:
    """Linear warm-up, then a cosine from the peak to the final rate, then constant.

    Args:
        step: Global step, counted over all rounds of one site, from 0.
        params: Peak, final rate and warm-up.
        decay_steps: Global step at which the final rate is reached.
    """
    if step < params.warmup_steps:
        return params.learning_rate * (step + 1) / params.warmup_steps
    progress = min(1.0, (step - params.warmup_steps) / max(1, decay_steps - params.warmup_steps))
    span = params.learning_rate - params.final_learning_rate
    return params.final_learning_rate + span * 0.5 * (1.0 + math.cos(math.pi * progress))
