"""Ready-made tasks over the trainers and programs of others, one module per framework, each an extra."""
