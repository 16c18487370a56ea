"""Population Based Training for PyTorch."""
