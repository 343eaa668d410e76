"""What the counters of a variant mean: indices into a group of kit.counters. Written by the gateway, read by metrics.

Names follow CloudWatch's AWS/SageMaker namespace (hosting.md section 9.1).
"""

INVOCATIONS = 0  # requests sent to the model
INVOCATION_4XX = 1  # the model answered 4xx
INVOCATION_5XX = 2  # the model answered 5xx
INVOCATION_MODEL_ERRORS = 3  # anything but a 2xx from the model, time-outs and lost connections included
REFUSED = 4  # no instance could take the request (ServiceUnavailable); nothing ran

MODEL_LATENCY = 0  # histogram: microseconds from sending to the instance until its whole answer was there
OVERHEAD_LATENCY = 1  # histogram: total minus ModelLatency
