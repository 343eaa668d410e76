"""A user's program for the SageMaker SDK v2, run unmodified in an environment that holds the SDK.

usage: sdk_v2.py BUCKET ROLE WORKDIR   WORKDIR holds model.tar.gz, inference.py, rows.json {"rows": …, "labels": …}
Prints one JSON object with what it saw.
"""

import json
import sys
from pathlib import Path

import boto3
import sagemaker
from sagemaker.deserializers import CSVDeserializer, JSONDeserializer
from sagemaker.model import Model
from sagemaker.predictor import Predictor
from sagemaker.serializers import CSVSerializer
from sagemaker.sklearn import SKLearnModel

bucket, role, workdir = sys.argv[1], sys.argv[2], Path(sys.argv[3])
rows = json.loads((workdir / "rows.json").read_text())["rows"]
session = sagemaker.Session(default_bucket=bucket)
seen = {"sdk": sagemaker.__version__, "boto3": boto3.__version__}

# A framework model: the SDK uploads the script as sourcedir.tar.gz and points SAGEMAKER_SUBMIT_DIRECTORY at it.
model_data = session.upload_data(str(workdir / "model.tar.gz"), bucket=bucket, key_prefix="sdk")
framework_model = SKLearnModel(
    model_data=model_data,
    role=role,
    entry_point=str(workdir / "inference.py"),
    framework_version="1.4-2",
    image_uri="683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.4-2-py312-cpu-py3",
    sagemaker_session=session,
)
predictor = framework_model.deploy(initial_instance_count=1, instance_type="ml.m5.large")
predictor.serializer, predictor.deserializer = CSVSerializer(), JSONDeserializer()
seen["framework"] = predictor.predict(rows)
predictor.update_endpoint(initial_instance_count=2, instance_type="ml.m5.large")
seen["updated"] = predictor.predict(rows)
described = session.sagemaker_client.describe_endpoint(EndpointName=predictor.endpoint_name)
seen["instances"] = described["ProductionVariants"][0]["CurrentInstanceCount"]
predictor.delete_model()
predictor.delete_endpoint(delete_endpoint_config=True)

# A plain Model: any image, the handler lies in model.tar.gz.
plain = Model(
    image_uri="mooring-python:3",
    model_data=session.upload_data(str(workdir / "plain.tar.gz"), bucket=bucket, key_prefix="sdk"),
    role=role,
    predictor_cls=Predictor,
    sagemaker_session=session,
)
predictor = plain.deploy(initial_instance_count=1, instance_type="ml.m5.large")
predictor.serializer, predictor.deserializer = CSVSerializer(), CSVDeserializer()  # it answers with what it gets
seen["plain"] = predictor.predict([[1.5, 2.5]])
predictor.delete_model()
predictor.delete_endpoint()
print("\n" + json.dumps(seen))  # the SDK leaves its progress marks on a line without an end
