"""Penstock: streaming preprocessing in front of model inference."""
