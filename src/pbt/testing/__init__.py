"""Public test tools: contract suites for stores, executors and strategies, and the toy problems."""
