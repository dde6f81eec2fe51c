"""Arithmetic of FCN-8s, counted from its shapes. Pure."""

from __future__ import annotations

from fcn.architecture import STRIDE, UPSAMPLINGS, Architecture, parameter_shapes


def forward_macs(arch: Architecture, height: int, width: int) -> int:
    """Multiplications with addition of all convolutions on one image, its sides multiples of 32.

    111.3e9 for the published network at 512x512.
    """
    pixels = height * width
    # Encoder stage n works at 1 / 4^(n-1) of the pixels, fc6, fc7 and their head at 1 / 32^2.
    at = {f"conv{stage}": 4 ** (stage - 1) for stage in range(1, 6)}
    at.update(conv6=STRIDE**2, conv7=STRIDE**2, score_fr=STRIDE**2, score_pool4=16**2, score_pool3=8**2)
    # A transposed convolution multiplies each input pixel by its whole kernel.
    at.update(dict(zip(UPSAMPLINGS, (STRIDE**2, 16**2, 8**2))))
    macs = 0
    for name, shape in parameter_shapes(arch).items():
        if name.endswith(".weight"):
            outputs, inputs, kernel_h, kernel_w = shape
            macs += outputs * inputs * kernel_h * kernel_w * (pixels // at[name.partition(".")[0]])
    return macs


def training_flop(arch: Architecture, crop: int) -> int:
    """Floating-point operations of one image's training step.

    A multiplication and an addition, forwards, and twice that backwards: for the inputs and for the weights.
    667.8e9 for the published network at 512x512.
    """
    return 3 * 2 * forward_macs(arch, crop, crop)
