"""Ready-made tasks over other people's programs and trainers, one module each."""
