"""Inference Recommender engine. (A later issue fills this room.)"""
