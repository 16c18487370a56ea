"""The application: the MNIST networks, trained alone or as a population."""
