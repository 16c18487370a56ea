"""Ready-made tasks over programs, trainers and estimators of other libraries."""
