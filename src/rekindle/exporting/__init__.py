"""Finished runs as files that answer the same without rekindle: ONNX, and folders that timm and the Hugging Face Hub read."""
