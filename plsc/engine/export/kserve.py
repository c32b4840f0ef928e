"""The target kserve: the model repository of the target triton, and an InferenceService that serves it with Triton.

https://kserve.github.io/website/ (API serving.kserve.io/v1beta1, ClusterServingRuntime kserve-tritonserver)
"""

from __future__ import annotations

import os

import yaml

from plsc.config import Config
from plsc.engine.export import triton
from plsc.files.hashes import write_new

SERVICE = "inference_service.yaml"
STORAGE = "s3://BUCKET/PATH"
_HEAD = f"""# Copy this directory to a storage that the cluster reads, and put its address in place of {STORAGE}.
# Then: kubectl apply -f {SERVICE}
"""


def write(config: Config, directory: str, onnx_file: str) -> list[str]:
    """Write config.pbtxt and the InferenceService. Raises ExportError."""
    name = config.export.model_name
    model = {
        "modelFormat": {"name": "onnx", "version": "1"},
        "runtime": "kserve-tritonserver",
        "protocolVersion": "v2",
        "storageUri": STORAGE,
    }
    service = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name},
        "spec": {"predictor": {"model": model}},
    }
    text = _HEAD + yaml.safe_dump(service, sort_keys=False)
    write_new(os.path.join(directory, SERVICE), text.encode("ascii"))
    return [*triton.write(config, directory, onnx_file), SERVICE]
