"""Attention for a population: members are stacked as examples for one call of torch's fused kernels.

`vmap` decomposes `F.multi_head_attention_forward`, and cannot batch some of the fused kernels.
"""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from pbt.pytorch.vectorized.linear import linear


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    p: float,
    causal: bool,
    scale: float | None = None,
    gqa: bool = False,
) -> Tensor:
    """`F.scaled_dot_product_attention` on q (members, n, heads, length, width); k and v likewise."""
    if mask is not None:
        # Broadcast over the leading dimensions of the queries.
        mask = mask.reshape(len(mask), *[1] * (q.dim() - mask.dim()), *mask.shape[1:])
        mask = mask.expand(*q.shape[:-1], mask.shape[-1]).flatten(0, 1)
    q_, k_, v_ = (x.flatten(0, 1) for x in (q, k, v))
    y = F.scaled_dot_product_attention(q_, k_, v_, mask, p, causal, scale=scale, enable_gqa=gqa)
    return y.view(*q.shape[:2], *y.shape[1:])


MULTI_HEAD = {
    "query": None, "key": None, "value": None, "embed_dim_to_check": 0, "num_heads": 1, "in_proj_weight": None,
    "in_proj_bias": None, "bias_k": None, "bias_v": None, "add_zero_attn": False, "dropout_p": 0.0,
    "out_proj_weight": None, "out_proj_bias": None, "training": True, "key_padding_mask": None, "need_weights": True,
    "attn_mask": None, "use_separate_proj_weight": False, "q_proj_weight": None, "k_proj_weight": None,
    "v_proj_weight": None, "static_k": None, "static_v": None, "average_attn_weights": True, "is_causal": False,
}  # fmt: skip
"""The arguments of `F.multi_head_attention_forward` with their defaults."""
_NAMES = [*MULTI_HEAD]


def fits_multi_head(*given: Any) -> bool:
    """Whether `multi_head` supports the call: batches, a packed projection, no returned weights, at most a 2D mask."""
    of = dict(zip(_NAMES, given, strict=True))
    plain = not (of["need_weights"] or of["add_zero_attn"] or of["use_separate_proj_weight"])
    unused = ("bias_k", "bias_v", "key_padding_mask", "static_k", "static_v")
    masked = of["attn_mask"] is None or of["attn_mask"].dim() == 2
    return plain and masked and of["query"].dim() == 3 and all(of[name] is None for name in unused)


def multi_head(*given: Any) -> Tensor:
    """The outputs of `F.multi_head_attention_forward` for all members: (members, length, n, width)."""
    of = dict(zip(_NAMES, given, strict=True))
    query, heads, weight, bias = of["query"], of["num_heads"], of["in_proj_weight"], of["in_proj_bias"]
    biases = [None] * 3 if bias is None else bias.chunk(3, dim=1)
    if _same(query, of["key"]) and _same(query, of["value"]):
        projected: Sequence[Tensor] = linear(query, weight, bias).chunk(3, dim=-1)
    else:
        inputs = query, of["key"], of["value"]
        projected = [*map(linear, inputs, weight.chunk(3, dim=1), biases)]
    # (members, length, n, width) to (members, n, heads, length, width of a head).
    q, k, v = (x.reshape(*x.shape[:3], heads, -1).permute(0, 2, 3, 1, 4) for x in projected)
    mask, causal = of["attn_mask"], bool(of["is_causal"])
    if mask is not None and not causal:
        mask = mask.reshape(len(mask), 1, 1, *mask.shape[1:])
    dropout = of["dropout_p"] if of["training"] else 0.0
    y = attention(q, k, v, None if causal else mask, dropout, causal)
    y = y.permute(0, 3, 1, 2, 4).flatten(3)
    return linear(y, of["out_proj_weight"], of["out_proj_bias"])


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether both are the same tensor: `vmap` passes each argument as a new object."""
    return (one.data_ptr(), one.shape, one.stride()) == (other.data_ptr(), other.shape, other.stride())
