"""Settings of cuDNN for this process."""

from __future__ import annotations

from plsc.backend import flags, private

# The flags that PLSC 2.2 set for its runs, all of them in mixed precision, and what they do.
CUDNN = {
    "FLAGS_cudnn_exhaustive_search": "the algorithm of each convolution is the one that was fastest when tried",
    "FLAGS_cudnn_batchnorm_spatial_persistent": "batch norm by cuDNN's persistent kernels",
}


def tune_cudnn() -> list[str]:
    """Set the flags of CUDNN that the environment does not set; returns lines for the log.

    Which algorithm is fastest may differ from run to run, and with it the rounding: a run is then not repeated to the
    bit. Call it before the first program runs.
    """
    given = {name: value for name in CUDNN if (value := flags.in_environment(name)) is not None}
    for name in [name for name in CUDNN if name not in given]:
        private.set_flag(name, True, without="convolutions may take longer")
    lines = [f"cuDNN: {name}={value}, as the environment says" for name, value in given.items()]
    own = [f"{name} ({CUDNN[name]})" for name in CUDNN if name not in given]
    if own:
        lines.append(
            f"cuDNN, for mixed precision: {'; '.join(own)}; another run may round otherwise; a flag set to 0 in the "
            "environment turns it off"
        )
    return lines
