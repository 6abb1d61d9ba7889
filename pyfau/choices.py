"""Options with a fixed set of values, as Literal types.

`pyfau.checks.check_choice` checks them. The command line takes its suggestions from them; it starts
without NumPy, and so does this module.
"""

from __future__ import annotations

from typing import Literal, get_args

AlignerName = Literal["mtcnn", "fan", "mediapipe", "aligned", "mesh"]
AlignerChoice = Literal["auto", AlignerName]
# What the config of a model can name. Both are part of the package: a config from an untrusted
# source must not select an aligner that connects to the internet.
ModelAligner = Literal["mtcnn", "mesh"]
MODEL_ALIGNERS: tuple[ModelAligner, ...] = get_args(ModelAligner)
DEFAULT_ALIGNER: ModelAligner = "mtcnn"  # of a config that names none
BaselineMode = Literal["subtract", "threshold"]
BaselineSource = Literal["auto"]
ColorOrder = Literal["rgb", "bgr"]
DataSet = Literal["bp4d", "disfa"]
Engine = Literal["auto", "torch", "onnxruntime", "openvino"]
FANDetector = Literal["mtcnn", "sfd"]
MediaPipeDetector = Literal["mtcnn", "mediapipe"]
PlotKind = Literal["lines", "heatmap"]
Precision = Literal["auto", "float32", "bfloat16", "float16", "int8"]
Runner = Literal["local", "ray"]
SummaryUnit = Literal["face", "clip"]
TableFormat = Literal["csv", "parquet", "jsonl"]
WindowName = Literal["continuous", "clips"]
