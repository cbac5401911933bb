"""What an operator of the package is: one registration, from which PyTorch's own follow and the table of kernels.

`ADDING.md` in the folder of the package is the guide.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from det_ops import backends
from det_ops.backends import Backend

LIBRARY = torch.library.Library("det_ops", "DEF")
"""Where every operator is defined; kept alive as long as the module."""


class Function(NamedTuple):
    """What the table of kernels knows of a public function: the operator it stands on, and what to say without kernel.

    `host` functions bring their tensors to the CPU wherever they are.
    """

    operator: str | None
    fallback: str
    host: bool = False


FUNCTIONS: dict[str, Function] = {}
"""All public functions, by name."""

OPERATORS: dict[str, "Operator"] = {}
"""All operators but those of gradients, by name."""


class Operator:
    """A function of tensors that takes the kernel of their device, or the reference; made by :func:`operator`.

    Attributes:
        name: As PyTorch knows it, without `det_ops::`.
        module: Name of the module that defines it, and of those with its kernels.
        reference: What it computes, in plain PyTorch.
    """

    def __init__(
        self,
        name: str,
        fake: Callable[..., Any],
        reference: Callable[..., Any],
        *,
        by: Sequence[int] = (0,),
        inline: bool = False,
        kernels_of: str | None = None,
    ) -> None:
        self.name, self.module, self.reference = name, fake.__module__.rpartition(".")[2], reference
        self._by, self._inline, self._kernels_of = tuple(by), inline, kernels_of or name
        self._kernels: dict[str, Callable[..., Any]] = {}
        self._entry = self.compute

    def __call__(self, *arguments: Any) -> Any:
        """The result; arguments are not checked."""
        if self._inline and self.backend(arguments) is None:
            return self.reference(*arguments)
        return self._entry(*arguments)

    def backend(self, arguments: Sequence[Any]) -> Backend | None:
        """The one whose kernel takes these arguments, or None where the reference does. No value is read."""
        tensor = arguments[self._by[0]]
        if isinstance(tensor, list):
            tensor = tensor[0]
        found = backends.serving.get(tensor.device.type)
        if found is None or self._kernels_of not in found.kernels:
            return None
        if not found.float64:
            for place in self._by:
                tensor = arguments[place]
                if (tensor[0] if isinstance(tensor, list) else tensor).dtype == torch.float64:
                    return None
        return found

    def compute(self, *arguments: Any) -> Any:
        """The result by kernel or reference: what is inside the operator that PyTorch sees."""
        return (self.kernel_of(self.backend(arguments)) or self.reference)(*arguments)

    def kernel_of(self, backend: Backend | None) -> Callable[..., Any] | None:
        """The kernel that a backend has for this operator, imported when it is first asked for, or None."""
        if backend is None or self._kernels_of not in backend.kernels:
            return None
        if backend.name not in self._kernels:
            self._kernels[backend.name] = backend.kernel(self.module, self.name)
        return self._kernels[backend.name]

    def gradient(
        self,
        schema: str,
        *,
        reference: Callable[..., Any],
        save: Callable[..., None],
        apply: Callable[..., Any],
        twice: str = "",
    ) -> Callable[[Callable[..., Any]], "Operator"]:
        """Decorator of a function that returns empty gradients: make an operator, and with it the gradient of this one.

        Second derivatives are refused: no kernel has them, and PyTorch would take them for zero.

        Args:
            schema: Of the operator of the gradient, `<name>_backward(Tensor grad, ...) -> ...`.
            reference: What it computes, in plain PyTorch. Its kernels lie beside those of this operator.
            save: `save(ctx, inputs, output)`, as `torch.library.register_autograd` has it.
            apply: `apply(ctx, grad)`, as there: gradients of all arguments. It calls the operator that is made here.
            twice: What to do for a second derivative, the end of a sentence.
        """

        def decorate(fake: Callable[..., Any]) -> Operator:
            made = Operator(_name(schema), fake, reference, kernels_of=self.name)
            _define(made, schema, fake)

            def refuse(ctx: Any, *grads: Any) -> None:  # noqa: ARG001 - the names are torch's
                raise RuntimeError(f"{self.name} of det_ops is differentiable once{twice}.")

            torch.library.register_autograd(f"det_ops::{made.name}", refuse, lib=LIBRARY)
            torch.library.register_autograd(f"det_ops::{self.name}", apply, setup_context=save, lib=LIBRARY)
            return made

        return decorate


def operator(
    schema: str,
    *,
    reference: Callable[..., Any],
    functions: Sequence[str],
    fallback: str,
    by: Sequence[int] = (0,),
    inline: bool = False,
) -> Callable[[Callable[..., Any]], Operator]:
    """Decorator of a function that returns empty results: make it the operator `det_ops::<name>` of PyTorch's.

    The decorated function takes the operator's arguments, and returns tensors of the shapes, dtypes and memory layouts
    of the results, whose values do not matter: what a compiler needs to know. Kernels are found by name, see
    :class:`~det_ops.backends.Backend`.

    Args:
        schema: In PyTorch's language, `<name>(Tensor boxes, ...) -> Tensor`.
        reference: What it computes, in plain PyTorch: static shapes, any device, no value read.
        functions: Names of the public functions that stand on it: rows of the table of kernels.
        fallback: What the table says of the reference.
        by: Places of the arguments that choose the kernel: the first one by its device, all by their dtypes (a list of
            tensors by its first one).
        inline: Call the reference in the open where it serves, so that compilers see and fuse its operators, and
            PyTorch differentiates them; by default it is inside the operator.
    """

    def decorate(fake: Callable[..., Any]) -> Operator:
        made = OPERATORS[_name(schema)] = Operator(_name(schema), fake, reference, by=by, inline=inline)
        _define(made, schema, fake)
        FUNCTIONS.update(dict.fromkeys(functions, Function(made.name, fallback)))
        return made

    return decorate


def host_operator(name: str, *, fallback: str) -> Callable[[Callable[..., Any]], Operator]:
    """Decorator of a reference on the CPU whose result is no tensor: choose between it and the CPU's kernel.

    Args:
        name: Of the kernel, and of the public function that stands on it.
        fallback: What the table of kernels says of other devices.
    """

    def decorate(reference: Callable[..., Any]) -> Operator:
        FUNCTIONS[name] = Function(name, fallback, host=True)
        made = Operator(name, reference, reference)
        made._entry = _on_cpu(made) or made.compute
        return made

    return decorate


def elementwise(*functions: str) -> None:
    """Note public functions that consist of PyTorch's elementwise operators, for which there is no kernel to write."""
    fallback = "elementwise: PyTorch's own kernels, fused by torch.compile"
    FUNCTIONS.update(dict.fromkeys(functions, Function(None, fallback)))


def _define(made: Operator, schema: str, fake: Callable[..., Any]) -> None:
    LIBRARY.define(schema)
    LIBRARY.impl(made.name, made.compute, "CompositeExplicitAutograd")
    torch.library.register_fake(f"det_ops::{made.name}", fake, lib=LIBRARY)
    made._entry = getattr(torch.ops.det_ops, made.name).default
    entry = _on_cpu(made)
    if entry is not None:
        LIBRARY.impl(made.name, entry, "CPU")


def _on_cpu(made: Operator) -> Callable[..., Any] | None:
    """The shortest way to the CPU's kernel, for what is called most, and often for little; None without a kernel."""
    kernel = made.kernel_of(backends.USUAL.get("cpu"))
    if kernel is None:
        return None
    return lambda *arguments: (kernel if backends.serving is backends.USUAL else made.compute)(*arguments)


def _name(schema: str) -> str:
    return schema.partition("(")[0]
