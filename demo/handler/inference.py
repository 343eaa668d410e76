"""The handler that the demo deploys: what a user would put into code/ of model.tar.gz."""

import os

import joblib


def model_fn(model_dir):
    """Load the trained pipeline."""
    model = joblib.load(os.path.join(model_dir, "model.joblib"))
    print(f"loaded {type(model).__name__} with {model.n_features_in_} features", flush=True)
    return model
