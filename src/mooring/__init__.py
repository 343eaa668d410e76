"""Mooring: self-hosted machine-learning inference that speaks the Amazon SageMaker API."""
