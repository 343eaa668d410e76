"""Trains the demo's models on data that ships with scikit-learn and packs them as SageMaker wants them."""

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import sklearn
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

HANDLER = Path(__file__).parent / "handler" / "inference.py"
_REGISTRY = "683313688378.dkr.ecr.us-east-1.amazonaws.com"


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Wisconsin breast cancer: 569 tumours, 30 measurements each, benign or malignant."""

    x_train: Any
    x_test: Any
    y_train: Any
    y_test: Any


def load() -> Data:
    """The data set, split once and for all; float32, which is what the scikit-learn container feeds a model."""
    x, y = load_breast_cancer(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x.astype(np.float32), y, test_size=0.35, random_state=7)
    return Data(x_train=x_train, x_test=x_test, y_train=y_train, y_test=y_test)


def train(data: Data) -> dict[str, Any]:
    """Two models of one task: what an A/B test compares."""
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(data.x_train, data.y_train)
    boosted = GradientBoostingClassifier(random_state=7).fit(data.x_train, data.y_train)
    return {"linear": linear, "boosted": boosted}


def image_and_requirements() -> tuple[str, str | None]:
    """The image whose tag means the scikit-learn that trained here; else plain Python with a requirements.txt."""
    if sklearn.__version__ == "1.4.2":
        return f"{_REGISTRY}/sagemaker-scikit-learn:1.4-2-py312-cpu-py3", None
    pins = f"scikit-learn=={sklearn.__version__}\nnumpy=={np.__version__}\njoblib=={joblib.__version__}\n"
    return "mooring-python:3", pins


def pack(model: Any, requirements: str | None) -> bytes:
    """model.tar.gz: the model at the top, the handler (and requirements) under code/."""
    pickled = io.BytesIO()
    joblib.dump(model, pickled)
    files = {"model.joblib": pickled.getvalue(), "code/inference.py": HANDLER.read_bytes()}
    if requirements:
        files["code/requirements.txt"] = requirements.encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()
