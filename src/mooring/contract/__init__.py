"""Names that both sides of a container agree on: paths, headers, environment, ports.

Standard library and old Pythons only: this runs inside framework environments too.
"""

PORT = 8080
PATH_PING = "/ping"
PATH_INVOCATIONS = "/invocations"
PATH_EXECUTION_PARAMETERS = "/execution-parameters"

BASE_DIR = "/opt/ml"
MODEL_DIR = "/opt/ml/model"
CODE_DIR = "/opt/ml/code"  # where the platform unpacks the s3:// archive that SAGEMAKER_SUBMIT_DIRECTORY names

# Exit status of our model server when the model itself cannot be loaded: starting it again will not help.
EXIT_MODEL_LOAD_FAILED = 78  # EX_CONFIG of sysexits.h

ENV_PROGRAM = "SAGEMAKER_PROGRAM"
DEFAULT_PROGRAM = "inference.py"
ENV_SUBMIT_DIRECTORY = "SAGEMAKER_SUBMIT_DIRECTORY"
ENV_BIND_TO_PORT = "SAGEMAKER_BIND_TO_PORT"
ENV_DEFAULT_ACCEPT = "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT"
ENV_WORKERS = "SAGEMAKER_MODEL_SERVER_WORKERS"
ENV_SERVER_TIMEOUT = "SAGEMAKER_MODEL_SERVER_TIMEOUT"
ENV_MAX_PAYLOAD_MB = "SAGEMAKER_MAX_PAYLOAD_IN_MB"
ENV_SOCKET = "MOORING_SERVE_SOCKET"  # our own server also listens on this Unix socket
ENV_MODEL_DIR = "MOORING_MODEL_DIR"  # set where /opt/ml/model cannot be mounted (no sandbox)
ENV_CODE_DIR = "MOORING_CODE_DIR"  # the same for /opt/ml/code
ENV_SERVE_TCP = "MOORING_SERVE_TCP"  # "1": our own server also listens on 127.0.0.1:PORT
ENV_FAMILY = "MOORING_FAMILY"  # which framework's defaults our own server follows: sklearn, python
ENV_VCPU = "MOORING_VCPU"  # vCPUs of the instance, for the number of workers and of threads

HEADER_CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
HEADER_TARGET_MODEL = "X-Amzn-SageMaker-Target-Model"
HEADER_TARGET_VARIANT = "X-Amzn-SageMaker-Target-Variant"
HEADER_TARGET_CONTAINER = "X-Amzn-SageMaker-Target-Container-Hostname"
HEADER_INFERENCE_ID = "X-Amzn-SageMaker-Inference-Id"
HEADER_ENABLE_EXPLANATIONS = "X-Amzn-SageMaker-Enable-Explanations"
HEADER_INFERENCE_COMPONENT = "X-Amzn-SageMaker-Inference-Component"
HEADER_SESSION_ID = "X-Amzn-SageMaker-Session-Id"
HEADER_INVOKED_VARIANT = "x-Amzn-Invoked-Production-Variant"
