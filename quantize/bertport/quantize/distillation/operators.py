"""ONNX operators in torch, through which gradients go: the standard ones of serving graphs, opset 17 to 20.

Rounding lets a gradient through as if it were not there, and cutting off stops it (straight-through estimation).
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch

    Inputs = Sequence[torch.Tensor | None]
    Attributes = Mapping[str, Any]
    Operator = Callable[[Inputs, Attributes], "torch.Tensor | tuple[torch.Tensor, ...]"]

__all__ = ["OPERATORS", "as_tensor"]


def as_tensor(values: np.ndarray[Any, Any]) -> torch.Tensor:
    """Return an array as a tensor of its own memory; types that torch lacks become its nearest wider one."""
    import torch

    wider = {"uint16": np.int32, "uint32": np.int64, "uint64": np.int64}.get(values.dtype.name)
    return torch.from_numpy(np.array(values, dtype=wider or values.dtype, order="C"))


def _all(inputs: Inputs) -> list[torch.Tensor]:
    """Return inputs of which none may be left out."""
    return [value for value in inputs if value is not None]


def _whole(value: torch.Tensor | None) -> list[int]:
    """Return a tensor of whole numbers as a list."""
    return [] if value is None else [int(number) for number in value.reshape(-1).tolist()]


def _given(inputs: Inputs, index: int) -> torch.Tensor | None:
    return inputs[index] if len(inputs) > index else None


def _axes(inputs: Inputs, attributes: Attributes) -> list[int]:
    """Return the axes of an operator, which opsets name in an attribute or in the second input."""
    return list(attributes["axes"]) if "axes" in attributes else _whole(_given(inputs, 1))


def _plain(name: str) -> Operator:
    """Return a function of torch that takes the inputs as they are."""

    def run(inputs: Inputs, attributes: Attributes) -> torch.Tensor:  # noqa: ARG001 — the signature
        import torch

        result: torch.Tensor = getattr(torch, name)(*_all(inputs))
        return result

    return run


def _divide(inputs: Inputs, attributes: Attributes) -> torch.Tensor:  # noqa: ARG001 — the signature
    one, two = _all(inputs)
    if one.is_floating_point():
        return one / two
    import torch

    return torch.div(one, two, rounding_mode="trunc")


def _matmul(inputs: Inputs, attributes: Attributes) -> torch.Tensor:  # noqa: ARG001 — the signature
    one, two = _all(inputs)
    product: torch.Tensor = one @ two
    return product


def _gemm(inputs: Inputs, attributes: Attributes) -> torch.Tensor:
    one, two, *rest = _all(inputs)
    one = one.T if attributes.get("transA", 0) else one
    two = two.T if attributes.get("transB", 0) else two
    product = attributes.get("alpha", 1.0) * (one @ two)
    return product + attributes.get("beta", 1.0) * rest[0] if rest else product


def _layer_normalization(inputs: Inputs, attributes: Attributes) -> torch.Tensor:
    import torch

    values, weight = _all(inputs)[:2]
    axis = attributes.get("axis", -1) % values.ndim
    shape = values.shape[axis:]
    bias = _given(inputs, 2)
    return torch.nn.functional.layer_norm(values, shape, weight, bias, attributes.get("epsilon", 1e-5))


def _softmax(inputs: Inputs, attributes: Attributes) -> torch.Tensor:
    return _all(inputs)[0].softmax(attributes.get("axis", -1))


def _cast(inputs: Inputs, attributes: Attributes) -> torch.Tensor:
    from onnx import helper

    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(attributes["to"]))
    return _all(inputs)[0].to(as_tensor(np.zeros(0, dtype=dtype)).dtype)


def _limits(inputs: Inputs) -> tuple[int, int]:
    """Return the least and the largest integer of a quantizing operator, which its zero point's type tells."""
    import torch

    zero = _given(inputs, 2)
    limits = torch.iinfo(torch.uint8 if zero is None else zero.dtype)
    return limits.min, limits.max


def _along(value: torch.Tensor, like: torch.Tensor, axis: int) -> torch.Tensor:
    """Shape a scale or a zero point of one axis so that it broadcasts."""
    if value.numel() == 1:
        return value.reshape(())
    return value.reshape([-1 if number == axis % like.ndim else 1 for number in range(like.ndim)])


def _quantize_linear(inputs: Inputs, attributes: Attributes) -> torch.Tensor:
    """Return the integers as float32: of integers torch has no gradient."""
    values, scale = _all(inputs)[:2]
    axis = attributes.get("axis", 1)
    steps = values / _along(scale, values, axis)
    rounded = steps + (steps.detach().round() - steps.detach())
    zero = _given(inputs, 2)
    if zero is not None:
        rounded = rounded + _along(zero, values, axis)
    return rounded.clamp(*_limits(inputs))


def _dequantize_linear(inputs: Inputs, attributes: Attributes) -> torch.Tensor:
    values, scale = _all(inputs)[:2]
    axis, zero = attributes.get("axis", 1), _given(inputs, 2)
    values = values.to(scale.dtype)
    return (values if zero is None else values - _along(zero, values, axis)) * _along(scale, values, axis)


def _gather(inputs: Inputs, attributes: Attributes) -> torch.Tensor:
    values, indices = _all(inputs)
    axis = attributes.get("axis", 0) % values.ndim
    flat = indices.reshape(-1).long() % max(1, values.shape[axis])
    shape = (*values.shape[:axis], *indices.shape, *values.shape[axis + 1 :])
    return values.index_select(axis, flat).reshape(shape)


def _gather_elements(inputs: Inputs, attributes: Attributes) -> torch.Tensor:
    values, indices = _all(inputs)
    axis = attributes.get("axis", 0)
    return values.gather(axis, indices.long() % max(1, values.shape[axis]))


def _reshape(inputs: Inputs, attributes: Attributes) -> torch.Tensor:
    values, shape = _all(inputs)
    sizes = _whole(shape)
    if not attributes.get("allowzero", 0):
        sizes = [values.shape[index] if size == 0 else size for index, size in enumerate(sizes)]
    if -1 in sizes and not values.numel():  # torch would not know which size is meant
        known = math.prod(size for size in sizes if size >= 0)
        sizes = [(0 if known else 1) if size < 0 else size for size in sizes]
    return values.reshape(sizes)


def _flatten(inputs: Inputs, attributes: Attributes) -> torch.Tensor:
    [values] = _all(inputs)
    axis = attributes.get("axis", 1)
    return values.reshape(math.prod(values.shape[:axis]), -1)


def _transpose(inputs: Inputs, attributes: Attributes) -> torch.Tensor:
    [values] = _all(inputs)
    return values.permute(attributes.get("perm", tuple(reversed(range(values.ndim)))))


def _concat(inputs: Inputs, attributes: Attributes) -> torch.Tensor:
    import torch

    return torch.cat(_all(inputs), dim=attributes["axis"])


def _shape(inputs: Inputs, attributes: Attributes) -> torch.Tensor:
    import torch

    sizes = list(_all(inputs)[0].shape)
    return torch.tensor(sizes[attributes.get("start", 0) : attributes.get("end")], dtype=torch.int64)


def _unsqueeze(inputs: Inputs, attributes: Attributes) -> torch.Tensor:
    values, axes = _all(inputs)[0], _axes(inputs, attributes)
    for axis in sorted(axis % (values.ndim + len(axes)) for axis in axes):
        values = values.unsqueeze(axis)
    return values


def _squeeze(inputs: Inputs, attributes: Attributes) -> torch.Tensor:
    values, axes = _all(inputs)[0], _axes(inputs, attributes)
    chosen = axes or [axis for axis, size in enumerate(values.shape) if size == 1]
    for axis in sorted((axis % values.ndim for axis in chosen), reverse=True):
        values = values.squeeze(axis)
    return values


def _slice(inputs: Inputs, attributes: Attributes) -> torch.Tensor:  # noqa: ARG001 — the signature
    values = _all(inputs)[0]
    starts, ends, axes, steps = (_whole(_given(inputs, index)) for index in range(1, 5))
    for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = axes[index] if axes else index
        size = values.shape[axis]
        chosen = range(size)[slice(start, end, steps[index] if steps else 1)]
        values = values.index_select(axis, as_tensor(np.array(chosen, dtype=np.int64)))
    return values


def _split(inputs: Inputs, attributes: Attributes, *, outputs: int = 0) -> tuple[torch.Tensor, ...]:
    import torch

    values, axis = _all(inputs)[0], attributes.get("axis", 0)
    sizes = list(attributes.get("split", ())) or _whole(_given(inputs, 1))
    if not sizes:
        count = attributes.get("num_outputs", outputs)
        size = -(-values.shape[axis] // count)
        sizes = [min(size, values.shape[axis] - size * number) for number in range(count)]
    return tuple(torch.split(values, sizes, dim=axis))


def _expand(inputs: Inputs, attributes: Attributes) -> torch.Tensor:  # noqa: ARG001 — the signature
    values, shape = _all(inputs)
    sizes = _whole(shape)
    wider = [1] * (len(sizes) - values.ndim) + list(values.shape)
    sizes = [1] * (values.ndim - len(sizes)) + sizes
    # Either side may be the one that is 1; torch takes -1 for the size that there is.
    return values.expand([-1 if asked == 1 and size != 1 else asked for size, asked in zip(wider, sizes, strict=True)])


def _tile(inputs: Inputs, attributes: Attributes) -> torch.Tensor:  # noqa: ARG001 — the signature
    values, repeats = _all(inputs)
    return values.tile(_whole(repeats))


def _range(inputs: Inputs, attributes: Attributes) -> torch.Tensor:  # noqa: ARG001 — the signature
    import torch

    start, end, step = _all(inputs)
    return torch.arange(start.item(), end.item(), step.item(), dtype=start.dtype)


def _constant_of_shape(inputs: Inputs, attributes: Attributes) -> torch.Tensor:
    import torch

    value = attributes["value"] if "value" in attributes else as_tensor(np.zeros(1, dtype=np.float32))
    return torch.full(_whole(inputs[0]), value.reshape(-1)[0].item(), dtype=value.dtype)


def _reduce(name: str, inputs: Inputs, attributes: Attributes) -> torch.Tensor:
    values, axes = _all(inputs)[0], _axes(inputs, attributes)
    if not axes and attributes.get("noop_with_empty_axes", 0):
        return values
    result: torch.Tensor = getattr(values, name)(
        dim=axes or list(range(values.ndim)), keepdim=bool(attributes.get("keepdims", 1))
    )
    return result


def _arg_max(inputs: Inputs, attributes: Attributes) -> torch.Tensor:
    [values] = _all(inputs)
    axis, keep = attributes.get("axis", 0), bool(attributes.get("keepdims", 1))
    if attributes.get("select_last_index", 0):
        return values.shape[axis] - 1 - values.flip(axis).argmax(axis, keepdim=keep)
    return values.argmax(axis, keepdim=keep)


def _clip(inputs: Inputs, attributes: Attributes) -> torch.Tensor:  # noqa: ARG001 — the signature
    return _all(inputs)[0].clamp(_given(inputs, 1), _given(inputs, 2))


def _cumulate(inputs: Inputs, attributes: Attributes) -> torch.Tensor:
    values, axis = _all(inputs)
    if attributes.get("exclusive", 0) or attributes.get("reverse", 0):
        raise NotImplementedError("CumSum that leaves itself out or runs backwards")
    return values.cumsum(int(axis.item()))


def _extreme(name: str, inputs: Inputs, attributes: Attributes) -> torch.Tensor:  # noqa: ARG001 — the signature
    import torch

    first, *others = _all(inputs)
    for other in others:
        first = getattr(torch, name)(first, other)
    return first


def _pad(inputs: Inputs, attributes: Attributes) -> torch.Tensor:
    import torch

    values, pads = _all(inputs)[0], _whole(_given(inputs, 1))
    if attributes.get("mode", b"constant") != b"constant" or _given(inputs, 3) is not None:
        raise NotImplementedError("Pad of another mode, or of some axes")
    filler = _given(inputs, 2)
    pairs = list(zip(pads[: values.ndim], pads[values.ndim :], strict=True))
    flat = [number for pair in reversed(pairs) for number in pair]
    return torch.nn.functional.pad(values, flat, value=0 if filler is None else filler.item())


def _gelu(inputs: Inputs, attributes: Attributes) -> torch.Tensor:
    import torch

    how = attributes.get("approximate", b"none").decode()
    return torch.nn.functional.gelu(_all(inputs)[0], approximate=how)


def _as_given(inputs: Inputs, attributes: Attributes) -> torch.Tensor:  # noqa: ARG001 — the signature
    return _all(inputs)[0]


OPERATORS: dict[str, Operator] = {
    **{
        operator: _plain(function)
        for operator, function in {
            "Abs": "abs",
            "Add": "add",
            "And": "logical_and",
            "Ceil": "ceil",
            "Cos": "cos",
            "Equal": "eq",
            "Erf": "erf",
            "Exp": "exp",
            "Floor": "floor",
            "Greater": "gt",
            "GreaterOrEqual": "ge",
            "Less": "lt",
            "LessOrEqual": "le",
            "Log": "log",
            "Mul": "mul",
            "Neg": "neg",
            "Not": "logical_not",
            "Or": "logical_or",
            "Pow": "pow",
            "Relu": "relu",
            "Sigmoid": "sigmoid",
            "Sign": "sign",
            "Sin": "sin",
            "Sqrt": "sqrt",
            "Sub": "sub",
            "Tanh": "tanh",
            "Where": "where",
        }.items()
    },
    "ArgMax": _arg_max,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "CumSum": _cumulate,
    "DequantizeLinear": _dequantize_linear,
    "Div": _divide,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "Identity": _as_given,
    "LayerNormalization": _layer_normalization,
    "MatMul": _matmul,
    "Max": partial(_extreme, "maximum"),
    "Min": partial(_extreme, "minimum"),
    "Pad": _pad,
    "QuantizeLinear": _quantize_linear,
    "Range": _range,
    "ReduceMean": partial(_reduce, "mean"),
    "ReduceSum": partial(_reduce, "sum"),
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""By their names in ONNX: from the inputs and attributes of a node to its output, or its outputs."""
