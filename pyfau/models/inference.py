"""A network that only infers: the same answers in less time."""

from __future__ import annotations

import torch

from pyfau.models.mdhr import MDHR, PatchProjection
from pyfau.models.packed import can_pack, fold_norms, pack

# Frames that a CPU encodes at a time: fewer, and small pictures make poor matrix products; more, and what lies between
# the layers outgrows the caches and is asked of the operating system anew each time.
_CPU_FRAMES = 8


@torch.no_grad()
def prepare(model: MDHR, dtype: torch.dtype = torch.float32) -> MDHR:
    """Make a network fit for inference and nothing else: it can no longer be trained or saved.

    Batch norms are folded into the layers before them and pictures are laid out channels_last; on a CPU, layers take
    oneDNN's form. The encoder computes in `dtype`; what sees the window stays float32.

    Args:
        model: A network in eval mode, changed in place.
        dtype: float32, bfloat16, or float16 on a GPU.

    Returns:
        The same network.
    """
    fold_norms(model)
    model.dynamics.fold()
    model.temporal.fold()
    model.encode_dtype = dtype
    backbone = model.get_submodule("backbone")
    backbone.to(dtype)
    model.static.to(dtype)
    projections = [p for p in model.dynamics.projections if isinstance(p, PatchProjection)]
    for projection in projections:
        projection.weight.data = projection.weight.to(dtype)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if model.device.type == "cpu" and can_pack():
        size = model.config.input_size
        pack(backbone, torch.zeros(1, 3, size, size, dtype=dtype).to(memory_format=torch.channels_last))
        for part in (model.static, model.dynamics, model.regions, model.cross_region):
            pack(part)
        for projection in projections:
            projection.pack()
        model.encode_frames = _CPU_FRAMES
    return model
