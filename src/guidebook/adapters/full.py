"""Full fine-tuning as an adapter: whole copies of the base's parameters, one of which is in the model at a time."""

from __future__ import annotations

from torch import Tensor, nn

from guidebook.adapters.modules import bare_name


class WholeCopies:
    """The base's own parameters, called None, and copies of them by name.

    Values change places by pointer, so the base's own are never written to. Tied parameters count once, under the name
    that comes first in the model. Names are those of the bare model, whatever adapters wrap its modules.
    """

    def __init__(self, model: nn.Module) -> None:
        self.current: str | None = None
        self._model = model
        self._parked: dict[str | None, dict[str, Tensor]] = {}  # values that are not in the model now
        self._names = frozenset(name for name, _ in model.named_parameters())
        tied = {name for name, _ in model.named_parameters(remove_duplicate=False)} - self._names
        self._stored = sorted(set(model.state_dict()) - tied)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the model's parameters without those of adapters, whoever's values they hold now."""
        named = ((bare_name(name), parameter) for name, parameter in self._model.named_parameters())
        return {name: parameter for name, parameter in named if name in self._names}

    def values(self, name: str | None) -> dict[str, Tensor]:
        """Return the parameters of a copy, or for None of the base, not copied again."""
        if name != self.current:
            return self._parked[name]
        return {key: parameter.detach() for key, parameter in self.parameters().items()}

    def tensors(self, name: str | None) -> dict[str, Tensor]:
        """Return the same and the buffers that a checkpoint stores."""
        everything = {bare_name(key): tensor for key, tensor in self._model.state_dict().items()}
        return {**{key: everything[key] for key in self._stored}, **self.values(name)}

    def add(self, name: str, start: str | None = None) -> None:
        """Add a copy of the base or of another copy."""
        self._parked[name] = {key: value.clone() for key, value in self.values(start).items()}

    def remove(self, name: str) -> None:
        """Forget a copy that is not in the model now."""
        del self._parked[name]

    def put(self, name: str | None) -> None:
        """Put a copy's values, or for None the base's own, into the model."""
        if name == self.current:
            return
        coming, going = self._parked.pop(name), {}
        for key, parameter in self.parameters().items():
            going[key] = parameter.data
            parameter.data = coming[key].to(parameter.device)
        self._parked[self.current] = going
        self.current = name
